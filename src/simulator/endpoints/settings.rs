//! The single-value settings of a device (authorized, tags, key expiry), and `expire`.

use super::call::Call;
use crate::simulator::{
    body::{Body, missing},
    policy::is_tag,
    response::{Answer, Refusal, Reply},
    world::World,
};

/// `POST /device/{device}/authorized`
pub(super) fn authorize(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let mut body = Body::parse(call.body, &["authorized"])?;
    let authorized = body
        .boolean("authorized")?
        .ok_or_else(|| missing("authorized"))?;
    let switches = &world.switches;
    // Unverified whether the live API refuses this, hence the switch.
    if !authorized && !switches.device_approval && !switches.deauthorize_without_approval {
        return Err(Refusal::bad_request(
            "device approval is not enabled for this tailnet",
        ));
    }
    let now = world.now();
    let device = &mut world.own_record(call.id())?.device;
    device.authorized = authorized;
    if !authorized {
        // Measured live: the device is cut off within 2 s, and an ephemeral one leaves the tailnet.
        device.disconnect(now);
        if device.is_ephemeral {
            world.remove(call.id())?;
        }
    }
    Ok(Answer::empty_object())
}

/// `POST /device/{device}/tags`
pub(super) fn set_tags(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let mut body = Body::parse(call.body, &["tags"])?;
    let mut tags = body.strings("tags")?.ok_or_else(|| missing("tags"))?;
    let refused: Vec<&str> = tags
        .iter()
        .map(String::as_str)
        .filter(|tag| !is_tag(tag) || !world.policy.owns(tag))
        .collect();
    if !refused.is_empty() {
        return Err(Refusal::bad_request(format!(
            "requested tags [{}] are invalid or not permitted",
            refused.join(" ")
        )));
    }
    let disables_expiry = world.switches.tags_disable_key_expiry;
    let device = &mut world.own_record(call.id())?.device;
    // Measured live. On a device of a user the empty list is accepted, and changes nothing.
    if tags.is_empty() && !device.tags.is_empty() {
        return Err(Refusal::bad_request(
            "tagged nodes cannot be untagged without reauth",
        ));
    }
    tags.sort();
    tags.dedup();
    // Only the first tags take a device from its user.
    let was_of_a_user = device.tags.is_empty();
    device.tags = tags;
    if was_of_a_user && !device.tags.is_empty() && disables_expiry {
        device.key_expiry_disabled = true;
    }
    Ok(Answer::empty_object())
}

/// `POST /device/{device}/key`
pub(super) fn set_key(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let mut body = Body::parse(call.body, &["keyExpiryDisabled"])?;
    let disabled = body
        .boolean("keyExpiryDisabled")?
        .ok_or_else(|| missing("keyExpiryDisabled"))?;
    let now = world.now();
    let device = &mut world.own_record(call.id())?.device;
    device.key_expiry_disabled = disabled;
    // The original expiry is back. If it has passed, the device must authenticate again.
    if !disabled && device.expires <= now {
        device.disconnect(now);
    }
    Ok(Answer::empty_object())
}

/// `POST /device/{device}/expire`: moves `expires` to now. A second call changes nothing.
pub(super) fn expire(world: &mut World, call: &Call) -> Reply {
    let now = world.now();
    let device = &mut world.own_record(call.id())?.device;
    // An earlier expiry stays: the key had expired already.
    if device.expires > now {
        device.expires = now;
    }
    device.disconnect(now);
    Ok(Answer::empty())
}
