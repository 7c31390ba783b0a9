//! Reading and deleting devices.

use std::borrow::Cow;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::Call;
use crate::simulator::{
    device::{Device, Record, whole_second},
    response::{Answer, Refusal, Reply},
    world::World,
};

/// The top-level properties by which the list can be filtered. Objects cannot be filtered.
const FILTERS: &[&str] = &[
    "addresses",
    "id",
    "nodeId",
    "user",
    "name",
    "hostname",
    "clientVersion",
    "updateAvailable",
    "os",
    "created",
    "lastSeen",
    "connectedToControl",
    "keyExpiryDisabled",
    "expires",
    "authorized",
    "isExternal",
    "isEphemeral",
    "machineKey",
    "nodeKey",
    "blocksIncomingConnections",
    "tags",
    "tailnetLockError",
    "tailnetLockKey",
    "enabledRoutes",
    "advertisedRoutes",
    "sshEnabled",
    "multipleConnections",
];

/// The level of detail of a device.
#[derive(Clone, Copy)]
struct View {
    details: bool,
    routes: bool,
    /// The `lastSeen` of connected devices.
    now: Option<Timestamp>,
}

impl View {
    fn of(world: &World, call: &Call) -> Result<Self, Refusal> {
        let details = match call.target.parameter("fields") {
            // Go's `Query().Get` cannot tell an empty value from an absent one.
            None | Some("default" | "") => false,
            Some("all") => true,
            Some(other) => {
                return Err(Refusal::bad_request(format!("invalid fields \"{other}\"")));
            }
        };
        let withheld =
            world.switches.fields_all_needs_routes_scope && !call.actor.may("devices:routes:read");
        Ok(Self {
            details,
            routes: !withheld,
            now: world
                .switches
                .connected_has_last_seen
                .then(|| whole_second(world.now())),
        })
    }

    fn show(self, device: &Device) -> Cow<'_, Device> {
        let mut shown = match self {
            Self { details: false, .. } => Cow::Owned(device.without_details()),
            Self { routes: false, .. } => Cow::Owned(device.without_routes()),
            Self {
                details: true,
                routes: true,
                ..
            } => Cow::Borrowed(device),
        };
        if device.connected_to_control && self.now.is_some() {
            shown.to_mut().last_seen = self.now;
        }
        shown
    }
}

/// `GET /tailnet/{tailnet}/devices`
pub(super) fn list(world: &mut World, call: &Call) -> Reply {
    let view = View::of(world, call)?;
    let pairs = call
        .target
        .query
        .iter()
        .filter(|(name, _)| name != "fields");
    let filters: Vec<&(String, String)> = pairs.collect();
    if let Some((name, _)) = filters
        .iter()
        .find(|(name, _)| !FILTERS.contains(&name.as_str()))
    {
        return Err(Refusal::bad_request(format!(
            "cannot filter devices by \"{name}\""
        )));
    }
    // OAuth tokens do not see devices that are shared in (tailscale#16911).
    let sees_external = call.actor.is_user() || world.switches.external_devices_for_oauth;
    let records = call.stale.as_deref().unwrap_or(&world.records);
    let devices: Vec<Cow<Device>> = records
        .iter()
        .map(|record: &Record| &record.device)
        .filter(|device| sees_external || !device.is_external)
        .filter(|device| filters.is_empty() || fits(device, &filters))
        .map(|device| view.show(device))
        .collect();
    if shows_as_is(world) {
        return Ok(Answer::json(&json_list(&devices)));
    }
    let devices: Vec<Value> = devices
        .iter()
        .map(|device| reported(world, device))
        .collect();
    Ok(Answer::json(&json!({ "devices": devices })))
}

/// Whether no switch changes the fields that responses have.
fn shows_as_is(world: &World) -> bool {
    world.switches.reported_as.is_empty() && !world.switches.sends_empty_fields
}

/// A device as the switches show it.
fn reported(world: &World, device: &Device) -> Value {
    let mut json = json!(device);
    if world.switches.sends_empty_fields {
        json["isEphemeral"] = json!(device.is_ephemeral);
        json["tags"] = json!(device.tags);
    }
    let changed = world.switches.reported_as.get(&device.node_id);
    for (field, value) in changed.into_iter().flatten() {
        json[field] = value.clone();
    }
    json
}

/// Borrows the devices, so that a list of 10,000 is not copied into JSON values first.
fn json_list<'a>(devices: &'a [Cow<'a, Device>]) -> impl serde::Serialize + 'a {
    std::collections::BTreeMap::from([("devices", devices)])
}

/// Each pair must match: a property must equal the value, a list must contain it.
fn fits(device: &Device, filters: &[&(String, String)]) -> bool {
    // Filters name the fields of the response, so they are looked up there.
    let json = serde_json::to_value(device).unwrap_or_default();
    filters.iter().all(|(name, wanted)| match &json[name] {
        Value::Array(items) => items.iter().any(|item| item == wanted),
        Value::Bool(flag) => wanted.parse() == Ok(*flag),
        // The API omits what is false.
        Value::Null => wanted == "false",
        other => other == wanted,
    })
}

/// `GET /device/{device}`
pub(super) fn get(world: &mut World, call: &Call) -> Reply {
    let view = View::of(world, call)?;
    let hides_external = !call.actor.is_user() && !world.switches.external_devices_for_oauth;
    let device = world.any_record(call.id())?.device.clone();
    if device.is_external && hides_external {
        return Err(Refusal::no_such_device());
    }
    Ok(Answer::json(&reported(world, &view.show(&device))))
}

/// `DELETE /device/{device}`
pub(super) fn delete(world: &mut World, call: &Call) -> Reply {
    if world.any_record(call.id())?.device.is_external {
        // The one refusal that tells a shared-in device apart.
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "cannot delete devices outside of your tailnet",
        ));
    }
    world.remove(call.id())?;
    Ok(Answer::empty())
}
