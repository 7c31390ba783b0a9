//! Parses the JSON of answers.
//!
//! Unknown fields are ignored, and missing ones are tolerated if the API is known to omit them. A field of a
//! device that has a wrong shape is unknown, never empty, and changes nothing for other fields and devices
//! (docs/decisions/0027). Any other wrong shape is an error with its path: an empty list would mean that every
//! device is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, json};

use super::{
    error::Error,
    json::{Mismatch, parse},
    response::Answer,
    scopes::Scopes,
};
use crate::model::{
    AttributeKey, Attributes, DesiredAttribute, Device, DeviceField, NodeId, Refused,
    ReportedAttribute, Route, RouteSet, SettingValue, Tag, TagSet, UnreadableDevice,
    UnreadableFields, parse_time,
};

#[cfg(test)]
mod tests;

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

/// One device of the list; `Err` in `Ok` if its identity cannot be read. `place` names it then.
pub(super) fn listed_device(
    json: &[u8],
    place: &str,
) -> Result<Result<Device, UnreadableDevice>, Mismatch> {
    let skipped = |name: Option<&str>| UnreadableDevice {
        device: match name.filter(|name| is_plain(name)) {
            Some(name) => format!("{place} ({name})"),
            None => place.to_owned(),
        },
        fields: vec!["nodeId"],
    };
    match parse::<WireDevice>(json) {
        Ok(wire) => {
            let name = wire.name.known().cloned();
            Ok(wire.read().map_err(|_| skipped(name.as_deref())))
        }
        // An object that has a field twice. Anything but an object is not the API's list.
        Err(_) if serde_json::from_slice::<serde_json::Map<_, _>>(json).is_ok() => {
            Ok(Err(skipped(None)))
        }
        Err(mismatch) => Err(mismatch),
    }
}

/// Whether a name can stand in a message as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 100 && name.bytes().all(|b| b.is_ascii_graphic())
}

/// The device of an answer.
pub(super) fn device(answer: &Answer) -> Result<Device, Error> {
    let wire: WireDevice = decode(answer)?;
    wire.read()
        .map_err(|Refused(why)| answer.unreadable(&Mismatch::new(&why)))
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
        // Attributes outside of `custom:` cannot be written, so no policy can manage them.
        let key = AttributeKey::reported(&name)?;
        let expiry = match expiries.get(&name).unwrap_or(&Reported::Absent) {
            Reported::Absent => Some(None),
            Reported::Read(time) => Some(time.0),
            Reported::Unreadable => None,
        };
        let is_value = value.is_string() || value.is_number() || value.is_boolean();
        let reported = match expiry.filter(|_| is_value) {
            Some(expiry) => ReportedAttribute { value, expiry },
            None => ReportedAttribute::unknown(),
        };
        Some((key, reported))
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

/// The tags that a policy file defines. The API takes the name of the section in any case, as its parser does.
pub(super) fn tag_owners(answer: &Answer) -> Result<BTreeSet<String>, Error> {
    let file: BTreeMap<String, Value> =
        parse(&answer.body).map_err(|mismatch| answer.mismatched(&mismatch))?;
    let sections = file.into_iter();
    let mut owners = sections.filter(|(name, _)| name.eq_ignore_ascii_case("tagOwners"));
    match owners.next() {
        None | Some((_, Value::Null)) => Ok(BTreeSet::new()),
        Some((_, Value::Object(owners))) => Ok(owners.into_iter().map(|(tag, _)| tag).collect()),
        Some(_) => {
            let mismatch = Mismatch::new("expected an object").within("tagOwners");
            Err(answer.mismatched(&mismatch))
        }
    }
}

/// The body that sets and deletes attributes of many devices.
pub(super) fn attribute_patch(patch: &AttributePatch) -> serde_json::Value {
    let nodes: serde_json::Value = patch
        .iter()
        .map(|(node, desired)| (node.to_string(), attribute_entries(desired)))
        .collect();
    json!({ "nodes": nodes })
}

fn attribute_entries(
    desired: &BTreeMap<AttributeKey, Option<DesiredAttribute>>,
) -> serde_json::Value {
    desired
        .iter()
        .map(|(key, desired)| {
            // The body is a JSON merge patch: an omitted expiry would stay, `null` clears it.
            let entry = desired
                .as_ref()
                .map(|desired| json!({ "value": desired.value, "expiry": desired.expiry }));
            (key.to_string(), json!(entry))
        })
        .collect()
}

fn decode<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    parse(&answer.body).map_err(|mismatch| answer.unreadable(&mismatch))
}

/// A field as the API reports it.
#[derive(Default)]
enum Reported<T> {
    #[default]
    Absent,
    Read(T),
    /// `null`, of another type, or a text of another form.
    Unreadable,
}

impl<T> Reported<T> {
    fn known(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Reported<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `null` too would be a value for an `Option`, so no `T` is one.
        let value = Value::deserialize(deserializer)?;
        Ok(T::deserialize(value).map_or(Self::Unreadable, Self::Read))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireDevice {
    id: Reported<String>,
    node_id: Reported<String>,
    name: Reported<String>,
    hostname: Reported<String>,
    user: Reported<String>,
    /// Absent, not empty, if there are none.
    tags: Reported<Vec<WireTag>>,
    /// IPv4 first, then IPv6.
    addresses: Reported<Vec<IpAddr>>,
    os: Reported<String>,
    client_version: Reported<String>,
    update_available: Reported<bool>,
    is_ephemeral: Reported<bool>,
    created: Reported<WireTime>,
    authorized: Reported<bool>,
    is_external: Reported<bool>,
    connected_to_control: Reported<bool>,
    key_expiry_disabled: Reported<bool>,
    expires: Reported<WireTime>,
    last_seen: Reported<WireTime>,
    enabled_routes: Reported<Vec<WireRoute>>,
    advertised_routes: Reported<Vec<WireRoute>>,
    tailnet_lock_error: Reported<String>,
}

/// Tailscale's first year: an earlier time cannot be the expiry of a key.
const FIRST_EXPIRY: Timestamp = Timestamp::constant(1_546_300_800, 0);

/// Reads the fields of a device, and notes those that are unknown.
#[derive(Default)]
struct FieldReader(UnreadableFields);

impl FieldReader {
    /// A field that the API may omit.
    fn optional<T>(&mut self, field: DeviceField, reported: Reported<T>) -> Option<T> {
        match reported {
            Reported::Read(value) => Some(value),
            Reported::Absent => None,
            Reported::Unreadable => {
                self.0.insert(field);
                None
            }
        }
    }

    /// A field that every device of the API has.
    fn required<T: Default>(&mut self, field: DeviceField, reported: Reported<T>) -> T {
        if let Reported::Absent = reported {
            self.0.insert(field);
        }
        self.optional(field, reported).unwrap_or_default()
    }

    fn time(&mut self, field: DeviceField, reported: Reported<WireTime>) -> Option<Timestamp> {
        self.optional(field, reported)?.0
    }

    fn routes(
        &mut self,
        field: DeviceField,
        reported: Reported<Vec<WireRoute>>,
    ) -> Option<RouteSet> {
        self.optional(field, reported).map(route_set)
    }
}

impl WireDevice {
    /// The identity: `nodeId`, or `id` in an answer that has no `nodeId`.
    fn identity(&self) -> Result<NodeId, Refused> {
        let id = match (&self.node_id, &self.id) {
            (Reported::Read(id), _) | (Reported::Absent, Reported::Read(id)) if !id.is_empty() => {
                id
            }
            _ => {
                let why = "a device without a nodeId that can be read";
                return Err(Refused(why.to_owned()));
            }
        };
        id.parse()
            .map_err(|refused: Refused| Refused(format!("nodeId: {refused}")))
    }

    fn read(self) -> Result<Device, Refused> {
        use DeviceField as Field;
        let node_id = self.identity()?;
        let mut fields = FieldReader::default();
        let addresses = fields.required(Field::Addresses, self.addresses);
        let tags = fields.optional(Field::Tags, self.tags);
        let created = fields.time(Field::Created, self.created);
        let mut expires = fields.time(Field::Expires, self.expires);
        // No key expires before its device has joined: such a time is not one.
        let first = created.map_or(FIRST_EXPIRY, |created| created.max(FIRST_EXPIRY));
        if expires.is_some_and(|expires| expires < first) {
            fields.0.insert(Field::Expires);
            expires = None;
        }
        let device = Device {
            node_id,
            legacy_id: fields.optional(Field::Id, self.id).unwrap_or_default(),
            name: fields.required(Field::Name, self.name),
            hostname: fields.required(Field::Hostname, self.hostname),
            user: fields.required(Field::User, self.user),
            tags: tags
                .into_iter()
                .flatten()
                .map(|tag| tag.0)
                .collect::<TagSet>(),
            ipv4: addresses.into_iter().find_map(|ip| match ip {
                IpAddr::V4(addr) => Some(addr),
                IpAddr::V6(_) => None,
            }),
            os: fields.required(Field::Os, self.os),
            client_version: fields.required(Field::ClientVersion, self.client_version),
            update_available: fields
                .optional(Field::UpdateAvailable, self.update_available)
                .unwrap_or_default(),
            ephemeral: fields
                .optional(Field::IsEphemeral, self.is_ephemeral)
                .unwrap_or_default(),
            created,
            authorized: fields.required(Field::Authorized, self.authorized),
            external: fields.required(Field::IsExternal, self.is_external),
            key_expiry_disabled: fields
                .required(Field::KeyExpiryDisabled, self.key_expiry_disabled),
            expires,
            connected: fields.optional(Field::ConnectedToControl, self.connected_to_control),
            last_seen: fields.time(Field::LastSeen, self.last_seen),
            enabled_routes: fields.routes(Field::EnabledRoutes, self.enabled_routes),
            advertised_routes: fields.routes(Field::AdvertisedRoutes, self.advertised_routes),
            lock_error: fields
                .optional(Field::TailnetLockError, self.tailnet_lock_error)
                .map_or_else(String::new, |error| one_line(&error)),
            unreadable: UnreadableFields::default(),
        };
        Ok(Device {
            unreadable: fields.0,
            ..device
        })
    }
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
    attributes: BTreeMap<String, Value>,
    expiries: Option<BTreeMap<String, Reported<WireTime>>>,
}

#[derive(Deserialize)]
struct WireToken {
    access_token: String,
    expires_in: Option<u64>,
    scope: Option<String>,
}

fn route_set(routes: Vec<WireRoute>) -> RouteSet {
    routes.into_iter().map(|route| route.0).collect()
}

/// A text of the API as the part of a message.
fn one_line(text: &str) -> String {
    let plain = text.chars().filter(|letter| !letter.is_control());
    plain.take(200).collect()
}

/// A tag. The rest is not checked: the API has accepted it.
struct WireTag(Tag);

impl<'de> Deserialize<'de> for WireTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with("tag:") {
            Ok(Self(Tag::reported(text)))
        } else {
            Err(D::Error::custom("expected a tag"))
        }
    }
}

struct WireRoute(Route);

impl<'de> Deserialize<'de> for WireRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Route::reported(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A time; empty and Go's zero time both mean none.
struct WireTime(Option<Timestamp>);

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = match text.as_str() {
            "" | "0001-01-01T00:00:00Z" => None,
            text => Some(parse_time(text).map_err(D::Error::custom)?),
        };
        Ok(Self(time))
    }
}
