//! The name of a device in its tailnet, which the server rewrites.

use jiff::SignedDuration;

use super::call::Call;
use crate::simulator::{
    body::{Body, missing},
    device::{Device, as_label},
    response::{Answer, Refusal, Reply},
    world::{FreedName, World},
};

/// `POST /device/{device}/name`: a label or the FQDN. `""` restores the OS hostname.
pub(super) fn set(world: &mut World, call: &Call) -> Reply {
    let device = world.own_record(call.id())?.device.clone();
    let mut body = Body::parse(call.body, &["name"])?;
    let wanted = body.string("name")?.ok_or_else(|| missing("name"))?;
    let label = if wanted.is_empty() {
        reset(world, &device)
    } else {
        // Rewritten before it is checked: `AC-Upper` is accepted, and becomes `ac-upper`.
        let label = as_label(base(&wanted, &device));
        if !is_label(&label) {
            return Err(Refusal::bad_request(format!("invalid name \"{wanted}\"")));
        }
        if is_taken(world, &label, &device) {
            return Err(Refusal::bad_request(format!(
                "name \"{label}\" is already taken"
            )));
        }
        label
    };
    // A rename to the present name frees nothing.
    if label != device.label() {
        reserve(world, &device);
    }
    world.own_record(call.id())?.device.rename(&label);
    Ok(Answer::empty_object())
}

/// The wanted name without the tailnet's own domain.
fn base<'a>(wanted: &'a str, device: &Device) -> &'a str {
    let base = wanted.strip_suffix(device.domain());
    base.and_then(|base| base.strip_suffix('.'))
        .unwrap_or(wanted)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && label
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
}

fn is_taken(world: &World, label: &str, device: &Device) -> bool {
    let mut devices = world.records.iter().map(|record| &record.device);
    let reserved = world.freed_names.get(label);
    devices.any(|other| {
        // The name of a shared-in device has another domain.
        other.node_id != device.node_id && !other.is_external && other.label() == label
    }) || reserved.is_some_and(|it| it.node_id != device.node_id && it.until > world.now())
}

/// The label of the OS hostname, with a number if another device has it.
fn reset(world: &World, device: &Device) -> String {
    let wanted = as_label(&device.hostname);
    if is_taken(world, &wanted, device) {
        world.free_label(&wanted, &device.node_id)
    } else {
        wanted
    }
}

/// A freed name stays taken for a while: measured live.
fn reserve(world: &mut World, device: &Device) {
    let now = world.now();
    let span = SignedDuration::from_secs(world.switches.freed_name_seconds.into());
    let freed = FreedName {
        node_id: device.node_id.clone(),
        until: now.saturating_add(span).unwrap_or(now),
    };
    world.freed_names.insert(device.label().to_owned(), freed);
}
