//! Invites that share a device with someone in another tailnet.

use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::call::Call;
use crate::simulator::{
    body::{Body, missing, parse_json},
    invite::{Invite, legacy_id},
    response::{Answer, Refusal, Reply},
    world::World,
};

/// The simulated tailnet, and the one user who owns every API key.
const TAILNET_ID: u64 = 59_954;
const USER_ID: u64 = 22_012;
const USER: &str = "amelie@example.com";
const URL: &str = "https://login.tailscale.com/admin/invite/";
/// How often an invite for several people can be accepted.
const MAX_ACCEPTS: u32 = 1_000;

fn no_such_invite() -> Refusal {
    Refusal::not_found("no device invite matching this ID found")
}

/// `GET /device/{device}/device-invites`
pub(super) fn list(world: &mut World, call: &Call) -> Reply {
    let device = world.own_record(call.id())?.device.clone();
    let invites = world.invites.iter().filter(|invite| invite.is_to(&device));
    Ok(Answer::json(&invites.collect::<Vec<_>>()))
}

/// `POST /device/{device}/device-invites`: creates all of the array or none.
pub(super) fn create(world: &mut World, call: &Call) -> Reply {
    // Invites name a device by its older numeric id.
    let device_id = legacy_id(&world.own_record(call.id())?.device);
    let Value::Array(wanted) = parse_json(call.body)? else {
        return Err(Refusal::bad_request(
            "json: cannot unmarshal: expected an array of invites",
        ));
    };
    let invites = wanted
        .into_iter()
        .map(|it| new_invite(world, device_id, it))
        .collect::<Result<Vec<Invite>, _>>()?;
    // Only if all of them are valid.
    world.invites.extend(invites.iter().cloned());
    Ok(Answer::json(&invites))
}

fn new_invite(world: &mut World, device_id: u64, wanted: Value) -> Result<Invite, Refusal> {
    let mut wanted = Body::of(wanted, &["multiUse", "allowExitNode", "email"])?;
    let email = wanted.string("email")?.filter(|email| !email.is_empty());
    let now = world.now();
    Ok(Invite {
        id: world.next_number().to_string(),
        created: now,
        tailnet_id: TAILNET_ID,
        device_id,
        sharer_id: USER_ID,
        multi_use: wanted.boolean("multiUse")?.unwrap_or_default(),
        allow_exit_node: wanted.boolean("allowExitNode")?.unwrap_or_default(),
        last_email_sent_at: email.as_ref().map(|_| now),
        email,
        invite_url: format!("{URL}{:016x}", fastrand::u64(..)),
        accepted: false,
        accepted_by: None,
        accepts: 0,
    })
}

/// `GET /device-invites/{invite}`
pub(super) fn get(world: &mut World, call: &Call) -> Reply {
    Ok(Answer::json(find(world, call.id())?))
}

/// `DELETE /device-invites/{invite}`
pub(super) fn delete(world: &mut World, call: &Call) -> Reply {
    let id = find(world, call.id())?.id.clone();
    world.invites.retain(|invite| invite.id != id);
    Ok(Answer::empty())
}

/// `POST /device-invites/{invite}/resend`: once a minute, and only if there is an email.
pub(super) fn resend(world: &mut World, call: &Call) -> Reply {
    let now = world.now();
    let invite = find(world, call.id())?;
    let Some(sent) = invite.last_email_sent_at else {
        return Err(Refusal::bad_request(
            "device invite was not created with an email",
        ));
    };
    // Against a sender who floods someone's mailbox.
    if now.duration_since(sent) < SignedDuration::from_mins(1) {
        return Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "device invite emails can be sent once per minute",
        ));
    }
    invite.last_email_sent_at = Some(now);
    Ok(Answer::empty())
}

/// `POST /device-invites/-/accept`: the URL, or the code at its end.
pub(super) fn accept(world: &mut World, call: &Call) -> Reply {
    let mut body = Body::parse(call.body, &["invite"])?;
    let invite = body.string("invite")?.ok_or_else(|| missing("invite"))?;
    let code = invite.strip_prefix(URL).unwrap_or(&invite).to_owned();
    let found = world
        .invites
        .iter_mut()
        .find(|it| it.invite_url == format!("{URL}{code}"));
    let invite = found.ok_or_else(no_such_invite)?;
    let max = if invite.multi_use { MAX_ACCEPTS } else { 1 };
    if invite.accepts >= max {
        return Err(Refusal::bad_request(
            "device invite has already been accepted",
        ));
    }
    invite.accepts += 1;
    invite.accepted = true;
    invite.accepted_by = Some(json!({"id": USER_ID, "loginName": USER, "profilePicUrl": ""}));
    let (device_id, exit_node) = (invite.device_id, invite.allow_exit_node);
    let device = &world.any_record(&device_id.to_string())?.device;
    let user = json!({
        "id": USER_ID.to_string(), "displayName": "Amelie", "loginName": USER, "profilePicURL": "",
    });
    Ok(Answer::json(&json!({
        "device": {
            "id": device.id,
            "os": device.os,
            "name": device.label(),
            "fqdn": device.name,
            "ipv4": device.ipv4(),
            "ipv6": device.addresses.iter().find(|address| address.is_ipv6()),
            "includeExitNode": exit_node,
        },
        "sharer": user,
        "acceptedBy": user,
    })))
}

fn find<'a>(world: &'a mut World, id: &str) -> Result<&'a mut Invite, Refusal> {
    world
        .invites
        .iter_mut()
        .find(|invite| invite.id == id)
        .ok_or_else(no_such_invite)
}
