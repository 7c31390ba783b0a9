//! What an expression can ask of a device.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::model::{Device, TagSet};

/// A text of a device; `None` where it has none.
pub(super) type ReadText = fn(&Device) -> Option<Cow<'_, str>>;
/// A flag of a device.
pub(super) type ReadFlag = fn(&Device) -> bool;
/// A list of a device.
pub(super) type ReadList = fn(&Device) -> &TagSet;

/// How a field is read.
#[derive(Clone, Copy)]
pub(super) enum Read {
    /// A text that every device has, be it empty.
    Text(ReadText),
    /// A text that some devices do not have.
    Sometimes(ReadText),
    Flag(ReadFlag),
    List(ReadList),
}

/// The fields by name, as the API spells them.
///
/// What policies themselves can change is left out, the tags aside: a selection that hung on it would
/// change by what it brings about. For tags a guard sees to that ([`crate::plan::Hold::Feedback`]).
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
    ("created", Read::Sometimes(|d| d.created.map(written))),
    ("expires", Read::Sometimes(|d| d.expires.map(written))),
    ("lastSeen", Read::Sometimes(|d| d.last_seen.map(written))),
];

/// Fields of the API that policies change.
const CHANGED_BY_POLICIES: [&str; 5] = [
    "authorized",
    "keyExpiryDisabled",
    "enabledRoutes",
    "addresses",
    "attributes",
];

/// How a field of this name is read, or why it cannot be asked for.
pub(super) fn find(name: &str) -> Result<(&'static str, Read), String> {
    if let Some(found) = FIELDS.into_iter().find(|(known, _)| *known == name) {
        return Ok(found);
    }
    if CHANGED_BY_POLICIES.contains(&name) {
        return Err(format!(
            "policies change {name}, so that nothing can be selected by it: write another field"
        ));
    }
    let names: Vec<&str> = FIELDS.into_iter().map(|(name, _)| name).collect();
    Err(format!(
        "there is no such field: write one of {}",
        names.join(", ")
    ))
}

/// By the second and in UTC, so that times compare as texts.
fn written(time: Timestamp) -> Cow<'static, str> {
    format!("{time:.0}").into()
}
