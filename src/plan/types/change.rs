use std::{cmp::Ordering, fmt};

use jiff::Timestamp;

use super::{ChangeCause, Hold, ListChange, PolicyKey};
use crate::model::{
    AttributeKey, Attributes, DesiredAttribute, Device, DeviceField, ListSetting, NodeId,
    PolicyField, ReportedAttribute, Setting, SettingValue,
};

/// A setting of a device, named by its path in a manifest. Each attribute key is a field of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// A setting that is one value.
    Setting(Setting),
    /// A setting that is entries of a list.
    List(ListSetting),
    /// `postureAttributes[KEY]`
    Attribute(AttributeKey),
    /// `expireKeyAt`
    ExpireKeyAt,
    /// `deleteInactive`
    DeleteInactive,
}

impl Field {
    /// Whether a claim on this field counts on other devices too: an attribute key has one type in a tailnet,
    /// and an address or a name belongs to one device.
    #[must_use]
    pub const fn is_tailnet_wide(&self) -> bool {
        match self {
            Self::Setting(setting) => setting.is_tailnet_wide(),
            Self::Attribute(_) => true,
            Self::List(_) | Self::ExpireKeyAt | Self::DeleteInactive => false,
        }
    }

    /// The field of a spec that declares it.
    #[must_use]
    pub fn of_spec(&self) -> PolicyField {
        match self {
            Self::Setting(setting) => setting.field(),
            Self::List(list) => list.field(),
            Self::Attribute(_) => PolicyField::PostureAttributes,
            Self::ExpireKeyAt => PolicyField::ExpireKeyAt,
            Self::DeleteInactive => PolicyField::DeleteInactive,
        }
    }

    /// Its place in lists: that of the spec, but attributes stand between the key expiry and the routes.
    fn place(&self) -> (PolicyField, Option<&AttributeKey>) {
        match self {
            Self::Attribute(key) => (PolicyField::KeyExpiry, Some(key)),
            other => (other.of_spec(), None),
        }
    }
}

impl Ord for Field {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Field {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.of_spec();
        match self {
            Self::Attribute(key) => write!(f, "{field}[{key}]"),
            _ => field.fmt(f),
        }
    }
}

/// The observed and the desired state of one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// A setting that is one value.
    Setting {
        /// Observed; `None` if the device has none.
        before: Option<SettingValue>,
        /// Desired.
        after: SettingValue,
    },
    /// A setting that is entries of a list.
    List(ListChange),
    /// An attribute that is set, changed, or (`after: None`) deleted.
    Attribute {
        /// Its key.
        key: AttributeKey,
        /// Observed.
        before: Option<ReportedAttribute>,
        /// Desired.
        after: Option<DesiredAttribute>,
    },
    /// Its key expired, once.
    ExpireKey {
        /// The declared time.
        at: Timestamp,
        /// When the key expires without the action.
        before: Option<Timestamp>,
    },
    /// Declared, but not compared with the device: no rule of the tailnet allows the policy to change the
    /// field there, so its author must not learn what the device has.
    NotCompared {
        /// The setting.
        field: Field,
        /// The declared value.
        after: String,
    },
    /// The device is deleted from the tailnet for good.
    Delete {
        /// When it was last seen.
        last_seen: Timestamp,
    },
}

impl Change {
    /// The changed field.
    #[must_use]
    pub fn field(&self) -> Field {
        match self {
            Self::Setting { after, .. } => Field::Setting(after.setting()),
            Self::List(change) => Field::List(change.setting()),
            Self::Attribute { key, .. } => Field::Attribute(key.clone()),
            Self::ExpireKey { .. } => Field::ExpireKeyAt,
            Self::Delete { .. } => Field::DeleteInactive,
            Self::NotCompared { field, .. } => field.clone(),
        }
    }

    /// The changed attribute, if the field is one.
    #[must_use]
    pub fn attribute(&self) -> Option<&AttributeKey> {
        match self {
            Self::Attribute { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether a later change of the same field shows that the value written here did not stay.
    #[must_use]
    pub fn undone_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Setting { after, .. }, Self::Setting { before, .. }) => {
                before.as_ref() != Some(after)
            }
            (Self::List(made), Self::List(later)) => {
                // The whole list: the request has replaced all of it.
                made.setting() == later.setting() && made.after() != later.before()
            }
            (Self::Attribute { after, .. }, Self::Attribute { before, .. }) => {
                match (after, before) {
                    // By value, as the plan compares: the API may report 3 as 3.0.
                    (Some(desired), Some(reported)) => !desired.is_met_by(reported),
                    (None, None) => false,
                    _ => true,
                }
            }
            // An action leaves no value that someone could change back.
            _ => false,
        }
    }

    /// Whether a device is as the change makes it; `None` if that is unknown. `attributes` are `None` if they were
    /// not read.
    #[must_use]
    pub fn is_made_in(&self, device: &Device, attributes: Option<&Attributes>) -> Option<bool> {
        match self {
            Self::Setting { after, .. } => {
                let now = after.setting().of(device)?;
                Some(now == *after)
            }
            Self::List(ListChange::Tags { .. }) if device.is_unknown(DeviceField::Tags) => None,
            Self::List(change) => Some(change.is_made_in(&change.setting().of(device)?)),
            Self::Attribute { key, after, .. } => match (after, attributes?.get(key)) {
                (_, Some(reported)) if reported.is_unknown() => None,
                (Some(desired), Some(reported)) => Some(desired.is_met_by(reported)),
                (None, None) => Some(true),
                (Some(_), None) | (None, Some(_)) => Some(false),
            },
            Self::ExpireKey { .. } | Self::Delete { .. } | Self::NotCompared { .. } => None,
        }
    }

    /// The observed value, for people.
    #[must_use]
    pub fn before(&self) -> String {
        match self {
            Self::Setting { before, .. } => or_none(before.as_ref()),
            Self::List(change) => change.before().to_string(),
            Self::Attribute { before, .. } => or_none(before.as_ref()),
            Self::ExpireKey { before, .. } => match before {
                Some(before) => format!("expires {before}"),
                None => "never expires".to_owned(),
            },
            Self::Delete { last_seen } => format!("last seen {last_seen}"),
            Self::NotCompared { .. } => String::new(),
        }
    }

    /// The observed and the desired value, for people. Long lists are shortened.
    #[must_use]
    pub fn brief(&self) -> (String, String) {
        match self {
            Self::List(change) => (
                format!("{:#}", change.before()),
                format!("{:#}", change.after()),
            ),
            _ => (self.before(), self.after()),
        }
    }

    /// Whether it would replace an attribute that could not be read.
    #[must_use]
    pub fn replaces_unknown(&self) -> bool {
        matches!(self, Self::Attribute { before: Some(before), .. } if before.is_unknown())
    }

    /// Whether it lets the device into the tailnet.
    #[must_use]
    pub fn authorizes(&self) -> bool {
        let authorized = SettingValue::Authorized(true);
        matches!(self, Self::Setting { after, .. } if *after == authorized)
    }

    /// The desired value, for people.
    #[must_use]
    pub fn after(&self) -> String {
        match self {
            Self::Setting { after, .. } => after.to_string(),
            Self::List(change) => change.after().to_string(),
            Self::Attribute { after, .. } => or_none(after.as_ref()),
            Self::ExpireKey { at, .. } => format!("expired as of {at}"),
            Self::Delete { .. } => "deleted".to_owned(),
            Self::NotCompared { after, .. } => after.clone(),
        }
    }
}

/// One line: `tags: tag:a → tag:a,tag:b`. `{:#}` shortens long lists.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The observed value is unknown, or its reader may not learn it.
        if let Self::NotCompared { field, after } = self {
            return write!(f, "{field}: {after}");
        }
        let (before, after) = if f.alternate() {
            self.brief()
        } else {
            (self.before(), self.after())
        };
        write!(f, "{}: {before} → {after}", self.field())
    }
}

fn or_none<T: fmt::Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// Why a policy wants a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A manifest declares it.
    Declared,
    /// The policy no longer declares this attribute.
    NoLongerDeclared,
    /// The policy owns all attributes of the device, and no policy declares this one.
    NotDeclared,
    /// The policy set it, and has released the device.
    Released,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declared => "declared",
            Self::NoLongerDeclared => "no longer declared",
            Self::NotDeclared => "not declared",
            Self::Released => "released",
        })
    }
}

/// One difference between the observed and the desired state of a device. Requests, shown plans, statuses
/// and Events are all made from this value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Difference {
    /// The device.
    pub node: NodeId,
    /// Its name, for people.
    pub device: String,
    /// The observed and the desired state.
    pub change: Change,
    /// Why.
    pub why: Why,
    /// Why the device differs. `None` if nothing is known of the time before.
    pub cause: Option<ChangeCause>,
    /// The policy that wants the change; of several, the one that ranks first.
    pub owner: PolicyKey,
    /// The other policies that want it, or a part of it, by rank.
    pub others: Vec<PolicyKey>,
    /// Why it is not sent, if it is held.
    pub hold: Option<Hold>,
}

impl Difference {
    /// Whether it is unknown if the device differs: the field cannot be read.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.hold, Some(Hold::Unreadable(_)))
    }

    /// Whether the controller holds it, although its policy is in force: neither suspended nor one that only
    /// observes.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let hold = self.hold.as_ref();
        hold.is_some_and(|hold| !matches!(hold, Hold::Observed | Hold::Suspended(_)))
    }

    /// The policies that want it, by rank.
    pub fn owners(&self) -> impl Iterator<Item = &PolicyKey> {
        std::iter::once(&self.owner).chain(&self.others)
    }

    /// Whether another device of the tailnet has what the change needs.
    #[must_use]
    pub fn cannot_hold(&self) -> bool {
        matches!(
            self.hold,
            Some(
                Hold::AttributeConflict { .. }
                    | Hold::AddressInUse(_)
                    | Hold::AddressSwap(_)
                    | Hold::NameTaken(_)
            )
        )
    }

    /// Whether this policy wants it.
    #[must_use]
    pub fn concerns(&self, policy: &PolicyKey) -> bool {
        self.owners().any(|owner| owner == policy)
    }
}
