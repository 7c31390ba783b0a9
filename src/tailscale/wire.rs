//! Parses the JSON of answers.
//!
//! Unknown fields are ignored, and missing ones are tolerated if the API is known to omit them. A wrong shape
//! is an error with its path, never an empty value: an empty list would mean that every device is gone.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::json;

use super::{
    error::Error,
    json::{Mismatch, parse},
    response::Answer,
    scopes::Scopes,
};
use crate::model::{
    AttributeKey, Attributes, DesiredAttribute, Device, NodeId, ReportedAttribute, Route, RouteSet,
    SettingValue, Tag,
};

/// For each device the attributes to set (`Some`) and to delete (`None`).
pub type AttributePatch = BTreeMap<NodeId, BTreeMap<AttributeKey, Option<DesiredAttribute>>>;

/// The body of the request that sets a setting.
pub(super) fn setting(value: &SettingValue) -> serde_json::Value {
    match value {
        SettingValue::Authorized(authorized) => json!({ "authorized": authorized }),
        SettingValue::KeyExpiryDisabled(disabled) => json!({ "keyExpiryDisabled": disabled }),
        SettingValue::Name(name) => json!({ "name": name }),
        SettingValue::Ipv4(ipv4) => json!({ "ipv4": ipv4 }),
    }
}

/// The routes of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// The routes that the machine advertises.
    pub advertised: RouteSet,
    /// The approved routes.
    pub enabled: RouteSet,
}

/// An access token and how long it lives.
pub(super) struct Granted {
    pub token: SecretString,
    pub life: Duration,
    /// Its scopes; `None` if the answer has none.
    pub scopes: Option<Scopes>,
}

/// One device of the list.
pub(super) fn listed_device(json: &[u8]) -> Result<Device, Mismatch> {
    parse::<ReadDevice>(json).map(|device| device.0)
}

/// The device of an answer.
pub(super) fn device(answer: &Answer) -> Result<Device, Error> {
    decode::<ReadDevice>(answer).map(|device| device.0)
}

/// The answer of `/routes`, read or written.
pub(super) fn routes(answer: &Answer) -> Result<Routes, Error> {
    let routes: WireRoutes = decode(answer)?;
    Ok(Routes {
        // `/routes` may omit what the machine advertises, but never what is approved.
        advertised: routes.advertised_routes.map(route_set).unwrap_or_default(),
        enabled: route_set(routes.enabled_routes),
    })
}

/// The answer of `/attributes`: those in `custom:`, the only ones that can be written.
pub(super) fn attributes(answer: &Answer) -> Result<Attributes, Error> {
    let WireAttributes {
        attributes,
        expiries,
    } = decode(answer)?;
    // Without an expiry, an attribute does not expire.
    let expiries = expiries.unwrap_or_default();
    let reported = attributes.into_iter().filter_map(|(name, value)| {
        let expiry = expiries.get(&name).and_then(|time| time.0);
        // Attributes outside of `custom:` cannot be written, so no policy can manage them.
        let key = AttributeKey::reported(&name)?;
        Some((key, ReportedAttribute { value, expiry }))
    });
    Ok(reported.collect())
}

/// The answer of the token endpoints. Its body is a secret: no part of it enters an error.
pub(super) fn granted(answer: &Answer) -> Result<Granted, Error> {
    let token: WireToken = serde_json::from_slice(&answer.body)
        .map_err(|_| answer.unexpected("expected JSON with access_token and expires_in"))?;
    // An hour is the only documented life (https://tailscale.com/kb/1215).
    let seconds = token.expires_in.unwrap_or(3600);
    Ok(Granted {
        token: token.access_token.into(),
        life: Duration::from_secs(seconds),
        scopes: token.scope.as_deref().map(Scopes::parse),
    })
}

/// The body that sets and deletes attributes of many devices.
pub(super) fn attribute_patch(patch: &AttributePatch) -> serde_json::Value {
    // This body is a JSON merge patch: an omitted expiry would stay, `null` clears it.
    let entry =
        |desired: &DesiredAttribute| json!({ "value": desired.value, "expiry": desired.expiry });
    let entries =
        |desired: &BTreeMap<AttributeKey, Option<DesiredAttribute>>| -> serde_json::Value {
            desired
                .iter()
                .map(|(key, desired)| (key.to_string(), json!(desired.as_ref().map(entry))))
                .collect()
        };
    let nodes: serde_json::Value = patch
        .iter()
        .map(|(node, desired)| (node.to_string(), entries(desired)))
        .collect();
    json!({ "nodes": nodes })
}

fn decode<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    parse(&answer.body).map_err(|mismatch| answer.mismatched(&mismatch))
}

#[derive(Deserialize)]
#[serde(try_from = "WireDevice")]
struct ReadDevice(Device);

#[expect(clippy::struct_excessive_bools, reason = "the API's own fields")]
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireDevice {
    id: String,
    node_id: String,
    name: String,
    hostname: String,
    user: String,
    /// Absent, not empty, if there are none.
    tags: Option<Vec<String>>,
    /// IPv4 first, then IPv6.
    addresses: Option<Vec<IpAddr>>,
    os: String,
    client_version: String,
    update_available: bool,
    is_ephemeral: bool,
    created: WireTime,
    authorized: bool,
    is_external: bool,
    connected_to_control: Option<bool>,
    key_expiry_disabled: bool,
    expires: WireTime,
    last_seen: WireTime,
    enabled_routes: Option<Vec<WireRoute>>,
    advertised_routes: Option<Vec<WireRoute>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRoutes {
    advertised_routes: Option<Vec<WireRoute>>,
    /// Empty if there are none, never absent.
    enabled_routes: Vec<WireRoute>,
}

#[derive(Deserialize)]
struct WireAttributes {
    attributes: BTreeMap<String, serde_json::Value>,
    expiries: Option<BTreeMap<String, WireTime>>,
}

#[derive(Deserialize)]
struct WireToken {
    access_token: String,
    expires_in: Option<u64>,
    scope: Option<String>,
}

impl TryFrom<WireDevice> for ReadDevice {
    type Error = String;

    fn try_from(wire: WireDevice) -> Result<Self, String> {
        let id = [&wire.node_id, &wire.id]
            .into_iter()
            .find(|id| !id.is_empty());
        let node_id: NodeId = id
            .ok_or("a device without nodeId and id")?
            .parse()
            .map_err(|refused| format!("nodeId: {refused}"))?;
        let ipv4 = wire
            .addresses
            .unwrap_or_default()
            .into_iter()
            .find_map(|ip| match ip {
                IpAddr::V4(addr) => Some(addr),
                IpAddr::V6(_) => None,
            });
        Ok(Self(Device {
            node_id,
            legacy_id: wire.id,
            name: wire.name,
            hostname: wire.hostname,
            user: wire.user,
            tags: wire
                .tags
                .unwrap_or_default()
                .into_iter()
                .map(Tag::reported)
                .collect(),
            ipv4,
            os: wire.os,
            client_version: wire.client_version,
            update_available: wire.update_available,
            ephemeral: wire.is_ephemeral,
            created: wire.created.0,
            authorized: wire.authorized,
            external: wire.is_external,
            key_expiry_disabled: wire.key_expiry_disabled,
            expires: wire.expires.0,
            connected: wire.connected_to_control,
            last_seen: wire.last_seen.0,
            enabled_routes: wire.enabled_routes.map(route_set),
            advertised_routes: wire.advertised_routes.map(route_set),
        }))
    }
}

fn route_set(routes: Vec<WireRoute>) -> RouteSet {
    routes.into_iter().map(|route| route.0).collect()
}

struct WireRoute(Route);

impl<'de> Deserialize<'de> for WireRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Route::reported(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time; absent, empty and Go's zero time all mean none.
#[derive(Default)]
struct WireTime(Option<Timestamp>);

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let time = match text.as_deref() {
            None | Some("" | "0001-01-01T00:00:00Z") => None,
            Some(text) => Some(text.parse().map_err(D::Error::custom)?),
        };
        Ok(Self(time))
    }
}
