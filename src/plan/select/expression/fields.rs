//! The fields of a device that an expression can read.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::model::{Device, DeviceField, Refused, TagSet};

/// A string of a device; `None` if the device has none.
pub(super) type ReadText = fn(&Device) -> Option<Cow<'_, str>>;
/// A boolean of a device.
pub(super) type ReadFlag = fn(&Device) -> bool;
/// A list of a device.
pub(super) type ReadList = fn(&Device) -> &TagSet;

/// How a field is read.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// A string that every device has, possibly empty.
    Text(ReadText),
    /// A string that some devices do not have.
    Sometimes(ReadText),
    Flag(ReadFlag),
    List(ReadList),
}

/// The fields by name, as the API spells them.
///
/// Settings that policies change are left out, except tags: otherwise a policy could change what its own
/// selector matches. For tags, a guard prevents that ([`crate::plan::Hold::WouldUnselect`]).
pub(super) const FIELDS: [(&str, Read); 12] = [
    ("nodeId", Read::Text(|d| Some(d.node_id.as_str().into()))),
    ("name", Read::Text(|d| Some(Cow::from(&d.name)))),
    ("hostname", Read::Text(|d| Some(Cow::from(&d.hostname)))),
    ("user", Read::Text(|d| Some(Cow::from(&d.user)))),
    ("os", Read::Text(|d| Some(Cow::from(&d.os)))),
    (
        "clientVersion",
        Read::Text(|d| Some(Cow::from(&d.client_version))),
    ),
    ("tags", Read::List(|d| &d.tags)),
    ("isEphemeral", Read::Flag(|d| d.ephemeral)),
    ("updateAvailable", Read::Flag(|d| d.update_available)),
    ("created", Read::Sometimes(|d| d.created.map(format_time))),
    ("expires", Read::Sometimes(|d| d.expires.map(format_time))),
    (
        "lastSeen",
        Read::Sometimes(|d| d.last_seen.map(format_time)),
    ),
];

/// The fields that may be unreadable, as far as an expression can read them.
// Without nodeId: a device whose nodeId cannot be read is skipped when the list is parsed.
pub(super) const MAY_BE_UNREADABLE: [DeviceField; 11] = [
    DeviceField::Name,
    DeviceField::Hostname,
    DeviceField::User,
    DeviceField::Os,
    DeviceField::ClientVersion,
    DeviceField::Tags,
    DeviceField::IsEphemeral,
    DeviceField::UpdateAvailable,
    DeviceField::Created,
    DeviceField::Expires,
    DeviceField::LastSeen,
];

/// Fields of the API that policies change.
const CHANGED_BY_POLICIES: [&str; 5] = [
    "authorized",
    "keyExpiryDisabled",
    "enabledRoutes",
    "addresses",
    "attributes",
];

/// How a field of this name is read, or why an expression cannot read it.
pub(super) fn find(name: &str) -> Result<(&'static str, Read), Refused> {
    if let Some(found) = FIELDS.into_iter().find(|(known, _)| *known == name) {
        return Ok(found);
    }
    if CHANGED_BY_POLICIES.contains(&name) {
        return Err(Refused(format!(
            "policies change {name}, so that no expression can read it: write another field"
        )));
    }
    let names: Vec<&str> = FIELDS.into_iter().map(|(name, _)| name).collect();
    Err(Refused(format!(
        "there is no such field: write one of {}",
        names.join(", ")
    )))
}

/// With whole seconds and in UTC, so that times compare as strings.
fn format_time(time: Timestamp) -> Cow<'static, str> {
    format!("{time:.0}").into()
}
