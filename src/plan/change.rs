use std::{fmt, net::Ipv4Addr};

use jiff::{SignedDuration, Timestamp};

use super::{AttributeType, ClockSkew, Disruption, MAX_EXPIRIES, PlanHash, PolicyKey, Suspender};
use crate::{
    api::APPROVE,
    model::{
        AttributeKey, DesiredAttribute, DeviceLabel, NodeId, ReportedAttribute, Route, RouteSet,
        TagSet, TailnetIpv4,
    },
};

/// A setting of a device, as the path in a manifest names it. Each attribute key is one of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `authorized`
    Authorized,
    /// `tags`
    Tags,
    /// `keyExpiry`
    KeyExpiry,
    /// `postureAttributes[KEY]`
    Attribute(AttributeKey),
    /// `enabledRoutes`
    EnabledRoutes,
    /// `exitNode`
    ExitNode,
    /// `name`
    Name,
    /// `ipv4`
    Ipv4,
    /// `expireKeyAt`
    ExpireKeyAt,
    /// `deleteInactive`
    DeleteInactive,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorized => f.write_str("authorized"),
            Self::Tags => f.write_str("tags"),
            Self::KeyExpiry => f.write_str("keyExpiry"),
            Self::Attribute(key) => write!(f, "postureAttributes[{key}]"),
            Self::EnabledRoutes => f.write_str("enabledRoutes"),
            Self::ExitNode => f.write_str("exitNode"),
            Self::Name => f.write_str("name"),
            Self::Ipv4 => f.write_str("ipv4"),
            Self::ExpireKeyAt => f.write_str("expireKeyAt"),
            Self::DeleteInactive => f.write_str("deleteInactive"),
        }
    }
}

/// What is and what is wished, for one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Whether the device may take part.
    Authorized {
        /// What is.
        before: bool,
        /// What is wished.
        after: bool,
    },
    /// All its tags.
    Tags {
        /// What is.
        before: TagSet,
        /// What is wished.
        after: TagSet,
    },
    /// Whether its key never expires.
    KeyExpiryDisabled {
        /// What is.
        before: bool,
        /// What is wished.
        after: bool,
    },
    /// An attribute set, changed or (`after: None`) deleted.
    Attribute {
        /// Which one.
        key: AttributeKey,
        /// What is.
        before: Option<ReportedAttribute>,
        /// What is wished.
        after: Option<DesiredAttribute>,
    },
    /// Its subnet routes, those of an exit node left out.
    EnabledRoutes {
        /// What is.
        before: RouteSet,
        /// What is wished.
        after: RouteSet,
    },
    /// Its exit-node routes: both or none.
    ExitNode {
        /// What is; half an exit node is possible.
        before: RouteSet,
        /// What is wished.
        after: bool,
    },
    /// Its MagicDNS label.
    Name {
        /// What is.
        before: DeviceLabel,
        /// What is wished.
        after: DeviceLabel,
    },
    /// Its IPv4 address.
    Ipv4 {
        /// What is.
        before: Option<Ipv4Addr>,
        /// What is wished.
        after: TailnetIpv4,
    },
    /// Its key expired, once.
    ExpireKey {
        /// The time that was wished for.
        at: Timestamp,
        /// When the key expires otherwise.
        before: Option<Timestamp>,
    },
    /// Declared, and not compared with the device, as no rule of the tailnet allows the policy to change
    /// it there: what the device has instead is not the author's to know.
    NotCompared {
        /// The setting.
        field: Field,
        /// What is declared.
        after: String,
    },
    /// The device taken out of the tailnet for good.
    Delete {
        /// When it was last seen.
        last_seen: Timestamp,
    },
}

impl Change {
    /// The field that it is about.
    #[must_use]
    pub fn field(&self) -> Field {
        match self {
            Self::Authorized { .. } => Field::Authorized,
            Self::Tags { .. } => Field::Tags,
            Self::KeyExpiryDisabled { .. } => Field::KeyExpiry,
            Self::Attribute { key, .. } => Field::Attribute(key.clone()),
            Self::EnabledRoutes { .. } => Field::EnabledRoutes,
            Self::ExitNode { .. } => Field::ExitNode,
            Self::Name { .. } => Field::Name,
            Self::Ipv4 { .. } => Field::Ipv4,
            Self::ExpireKey { .. } => Field::ExpireKeyAt,
            Self::Delete { .. } => Field::DeleteInactive,
            Self::NotCompared { field, .. } => field.clone(),
        }
    }

    /// The attribute that it is about, if it is about one.
    #[must_use]
    pub fn attribute(&self) -> Option<&AttributeKey> {
        match self {
            Self::Attribute { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether what a later change finds is not what this one has written.
    #[must_use]
    pub fn undone_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Authorized { after, .. }, Self::Authorized { before, .. })
            | (Self::KeyExpiryDisabled { after, .. }, Self::KeyExpiryDisabled { before, .. }) => {
                after != before
            }
            (Self::Tags { after, .. }, Self::Tags { before, .. }) => after != before,
            (Self::EnabledRoutes { after, .. }, Self::EnabledRoutes { before, .. }) => {
                after != before
            }
            (Self::ExitNode { after: true, .. }, Self::ExitNode { before, .. }) => {
                *before != Route::exit_node()
            }
            (Self::ExitNode { after: false, .. }, Self::ExitNode { before, .. }) => {
                !before.is_empty()
            }
            (Self::Name { after, .. }, Self::Name { before, .. }) => after != before,
            (Self::Ipv4 { after, .. }, Self::Ipv4 { before, .. }) => *before != Some(after.addr()),
            (Self::Attribute { after, .. }, Self::Attribute { before, .. }) => {
                match (after, before) {
                    (Some(desired), Some(reported)) => !desired.is_met_by(reported),
                    (None, None) => false,
                    _ => true,
                }
            }
            _ => false,
        }
    }

    /// What is, for people.
    #[must_use]
    pub fn before(&self) -> String {
        match self {
            Self::Authorized { before, .. } => before.to_string(),
            Self::Tags { before, .. } => listed(before),
            Self::KeyExpiryDisabled { before, .. } => key_expiry(*before).to_owned(),
            Self::Attribute { before, .. } => or_none(before.as_ref()),
            Self::EnabledRoutes { before, .. } | Self::ExitNode { before, .. } => listed(before),
            Self::Name { before, .. } => before.to_string(),
            Self::Ipv4 { before, .. } => or_none(before.as_ref()),
            Self::ExpireKey { before, .. } => match before {
                Some(before) => format!("expires {before}"),
                None => "never expires".to_owned(),
            },
            Self::Delete { last_seen } => format!("last seen {last_seen}"),
            Self::NotCompared { .. } => String::new(),
        }
    }

    /// What is wished, for people.
    #[must_use]
    pub fn after(&self) -> String {
        match self {
            Self::Authorized { after, .. } => after.to_string(),
            Self::Tags { after, .. } => listed(after),
            Self::KeyExpiryDisabled { after, .. } => key_expiry(*after).to_owned(),
            Self::Attribute { after, .. } => or_none(after.as_ref()),
            Self::EnabledRoutes { after, .. } => listed(after),
            Self::ExitNode { after: true, .. } => "0.0.0.0/0,::/0".to_owned(),
            Self::ExitNode { after: false, .. } => "none".to_owned(),
            Self::Name { after, .. } => after.to_string(),
            Self::Ipv4 { after, .. } => after.to_string(),
            Self::ExpireKey { at, .. } => format!("expired as of {at}"),
            Self::Delete { .. } => "deleted".to_owned(),
            Self::NotCompared { after, .. } => after.clone(),
        }
    }
}

/// One line: `tags: tag:a → tag:a,tag:b`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::NotCompared { field, after } = self {
            return write!(f, "{field}: {after}");
        }
        write!(f, "{}: {} → {}", self.field(), self.before(), self.after())
    }
}

fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(",")
    }
}

fn or_none<T: fmt::Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn key_expiry(disabled: bool) -> &'static str {
    if disabled { "Disabled" } else { "Enabled" }
}

/// Why something is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A manifest declares it.
    Declared,
    /// The policy named this attribute before and names it no more.
    NoLongerDeclared,
    /// The policy owns all attributes of the device, and none names this one.
    NotDeclared,
    /// The policy put it there, and has let the device go.
    Released,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declared => "declared",
            Self::NoLongerDeclared => "named no more",
            Self::NotDeclared => "not named",
            Self::Released => "let go",
        })
    }
}

/// Why a difference is seen, but no call is made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// It may cut somebody off, and the policy does not allow that.
    Disruption(Disruption),
    /// Another device holds this address now.
    AddressInUse(String),
    /// Other devices hold this address and each other's, and are to have the one of the next: in a
    /// circle back to this device.
    AddressSwap(Vec<String>),
    /// The tailnet has the key in another form.
    AttributeConflict {
        /// That form.
        attribute_type: AttributeType,
        /// Whether only the type is another one.
        same_key: bool,
        /// A device that has it.
        device: String,
    },
    /// Another device bears this name now.
    NameTaken(String),
    /// With these tags, this policy would no longer mean the device.
    WouldUnselect(PolicyKey),
    /// The device's key never expires, whenever it would.
    KeyNeverExpires,
    /// It is not known whether the device had joined at the time of a one-shot action.
    JoinTimeUnknown,
    /// The local clock is so far ahead of the API's (or behind it).
    ClockSkew(SignedDuration),
    /// The policy would expire more keys at one time than its status can keep.
    TooManyExpiries,
    /// It is done once, and the policy has no status in which that could be remembered.
    NoRecord,
    /// Somebody must approve it on the policy, by this hash once it is part of a frozen plan.
    Approval(Option<PlanHash>),
    /// More devices would be changed within an hour than the tailnet's limit allows. Somebody may
    /// approve it on the tailnet, by this hash once it is part of a frozen plan.
    Limit(Option<PlanHash>),
    /// Somebody has agreed to other changes and to no more.
    NotInApprovedPlan,
    /// The policy is suspended.
    Suspended(Suspender),
    /// No policy changes the device, by `protectedDevices`.
    Protected,
    /// No rule of `allowedPolicies` allows this on the device; this one would, if there is one to say.
    NotAllowed(String),
    /// The policy only observes.
    Observed,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disruption(Disruption::Deauthorize) => f.write_str(
                "takes the device out of the tailnet: write allowDisruption: [Deauthorize] to allow it",
            ),
            Self::Disruption(Disruption::ExpiredKey) => f.write_str(
                "the key's expiry lies in the past, so the device would be cut off until somebody \
                 logs in on it: write allowDisruption: [ExpiredKey] to allow it",
            ),
            Self::Disruption(Disruption::FirstTag) => f.write_str(
                "the first tag takes the device from its user, and no call gives it back: write \
                 allowDisruption: [FirstTag] to allow it",
            ),
            Self::AddressInUse(by) => write!(f, "{by} has this address: give that one another first"),
            Self::AddressSwap(others) => write!(
                f,
                "{} would have to give it up first, and in the end this device its own: the API does \
                 not swap addresses, and nobody is to be without one meanwhile. Wish for a free address \
                 for one of them first",
                others.join(", which waits for ")
            ),
            Self::AttributeConflict {
                attribute_type,
                same_key: true,
                device,
            } => write!(
                f,
                "{device} has {}, of type {}, and the API fixes the type of a key for the whole tailnet \
                 by its first write: give it as {}, or write another key",
                attribute_type.key, attribute_type.kind, attribute_type.kind
            ),
            Self::AttributeConflict { attribute_type, device, .. } => write!(
                f,
                "{device} has {}, and keys that differ only in case are one key for the API: write {}, \
                 or delete that one on all devices",
                attribute_type.key, attribute_type.key
            ),
            Self::NameTaken(by) => write!(f, "{by} has this name: rename that one first"),
            Self::Approval(Some(hash)) => write!(
                f,
                "somebody must approve it: annotate the policy with {APPROVE}: plan:{hash}"
            ),
            Self::Limit(Some(hash)) => write!(
                f,
                "it would go over maxChangedDevices: annotate the TailscaleTailnet with \
                 {APPROVE}: plan:{hash}, or raise its maxChangedDevices"
            ),
            Self::Approval(None) => {
                f.write_str("somebody must approve it: it is part of the next plan to be approved")
            }
            Self::Limit(None) => f.write_str(
                "it would go over maxChangedDevices: it is part of the next plan to be approved",
            ),
            Self::NotInApprovedPlan => {
                f.write_str("it was no part of the plan that was agreed to: make another plan")
            }
            Self::Suspended(Suspender::Policy) => {
                f.write_str("the policy is suspended: write suspend: false to allow it")
            }
            Self::Suspended(Suspender::Invalid) => {
                f.write_str("the policy is invalid: correct it")
            }
            Self::Suspended(Suspender::Tailnet) => f.write_str(
                "the TailscaleTailnet is suspended: write suspend: false there to allow it",
            ),
            Self::Protected => f.write_str(
                "no policy changes this device, as it is one of protectedDevices of the TailscaleTailnet",
            ),
            Self::NotAllowed(line) => write_not_allowed(f, line),
            Self::Observed => {
                f.write_str("the policy only observes: write enforcement: Enforce to allow it")
            }
            Self::KeyNeverExpires => f.write_str(
                "key expiry is disabled, so that the key would go on working: write keyExpiry: Enabled \
                 too. Where that is not done within an hour of the time, the act is missed",
            ),
            Self::JoinTimeUnknown => f.write_str(
                "the API does not say when the device joined the tailnet, so that it may have joined \
                 after the time",
            ),
            Self::ClockSkew(skew) => write!(f, "{}", ClockSkew(*skew)),
            Self::NoRecord => f.write_str(
                "it is done once, and only in a cluster there is a status that remembers it: the controller \
                 does it there",
            ),
            Self::TooManyExpiries => write!(
                f,
                "a policy can expire the keys of {MAX_EXPIRIES} devices at one time: narrow its \
                 deviceSelector, and write another policy for the others"
            ),
            Self::WouldUnselect(policy) => write!(
                f,
                "with these tags {policy} would no longer mean the device: correct either its \
                 device or deviceSelector, or the wish for tags"
            ),
        }
    }
}

fn write_not_allowed(f: &mut fmt::Formatter<'_>, line: &str) -> fmt::Result {
    f.write_str("no rule of the TailscaleTailnet allows it on this device")?;
    if line.is_empty() {
        return Ok(());
    }
    write!(f, "; one that would: {line}")
}

/// One difference between a device and the wishes for it. What is sent, what a plan shows, what
/// stands in a status and in an event is this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The device.
    pub node: NodeId,
    /// What people call it.
    pub device: String,
    /// What is and what is wished.
    pub change: Change,
    /// Why.
    pub why: Why,
    /// The policy that wishes it; of several, the one that ranks first.
    pub owner: PolicyKey,
    /// The others that wish it, or a part of it, by rank.
    pub others: Vec<PolicyKey>,
    /// Why it is not done, where it is not.
    pub hold: Option<Hold>,
}

impl Difference {
    /// The policies that wish it, by rank.
    pub fn owners(&self) -> impl Iterator<Item = &PolicyKey> {
        std::iter::once(&self.owner).chain(&self.others)
    }

    /// Whether another device of the tailnet has what it would need.
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

    /// Whether this policy wishes it.
    #[must_use]
    pub fn concerns(&self, policy: &PolicyKey) -> bool {
        self.owners().any(|owner| owner == policy)
    }
}
