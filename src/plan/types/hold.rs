use std::fmt;

use jiff::SignedDuration;

use super::{PolicyKey, Suspender};
use crate::{
    model::{APPROVE, ChangeLimit, Disruption, Reason, UnreadableFields, counted},
    plan::{AttributeType, ClockSkew, MAX_EXPIRIES, PlanHash},
};

/// A plan that the change limit holds, for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitedPlan {
    /// How many devices it would change.
    pub devices: usize,
    /// How many may be changed within an hour.
    pub limit: usize,
    /// The limit as it is declared, if that is known.
    pub declared: Option<ChangeLimit>,
    /// Whether the limit is the share of one namespace.
    pub is_share: bool,
    /// The hash that an approval names, once the plan is frozen.
    pub hash: Option<PlanHash>,
}

/// Why a change is planned but not sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hold {
    /// It can cut the device off, and the policy does not allow that.
    Disruption(Disruption),
    /// Another device has this address now.
    AddressInUse(String),
    /// Each of these devices has the address that the one before it must get, in a circle that begins and
    /// ends with this device.
    AddressSwap(Vec<String>),
    /// The tailnet has the key with another spelling or type.
    AttributeConflict {
        /// The spelling and type that the tailnet has.
        attribute_type: AttributeType,
        /// Whether only the type differs.
        same_key: bool,
        /// A device that has it.
        device: String,
    },
    /// Another device has this name now.
    NameTaken(String),
    /// With these tags, this policy would no longer match the device.
    WouldUnselect(PolicyKey),
    /// Key expiry is disabled on the device, so that expiring the key would have no effect.
    KeyNeverExpires,
    /// It is unknown whether the device had joined at the time of a one-shot action.
    JoinTimeUnknown,
    /// The local clock is this far ahead of the API's, or behind it if negative.
    ClockSkew(SignedDuration),
    /// The policy would expire more keys at one time than its status can record.
    TooManyExpiries,
    /// It is a one-shot action, and the policy has no status to record it in.
    NoRecord,
    /// Pending approval on the policy: by this hash, once it is part of a frozen plan.
    Approval(Option<PlanHash>),
    /// The policy would change more devices within an hour than the tailnet's limit allows. Someone can
    /// approve it on the tailnet. `None` while the numbers are not known.
    Limit(Option<Box<LimitedPlan>>),
    /// Someone approved a shown plan, and it is not part of that plan.
    NotInApprovedPlan,
    /// The policy is suspended.
    Suspended(Suspender),
    /// The device is one of `protectedDevices`.
    Protected,
    /// No rule of `allowedPolicies` allows it on the device. This rule would; empty if none is suggested.
    NotAllowed(String),
    /// The policy only observes.
    Observed,
    /// It depends on fields of the device that the API reports in a form that cannot be read.
    Unreadable(UnreadableFields),
    /// Tailnet lock keeps the device out, although it is authorized. The API's reason.
    LockedOut(String),
}

const PROTECTED: &str = "no policy may change this device: it is one of protectedDevices of the \
                         TailscaleTailnet";
const KEY_NEVER_EXPIRES: &str = "key expiry is disabled, so that the key would continue to work: \
                                 write keyExpiry: Enabled too. An hour after the time, the action \
                                 is missed";
const JOIN_TIME_UNKNOWN: &str = "the API does not report when the device joined the tailnet, so \
                                 that it may have joined after the time";
const NO_RECORD: &str = "a one-shot action needs a status that records it: only the controller \
                         does it, in a cluster";

impl Hold {
    /// The reason of the condition that reports it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Disruption(_) => Reason::DisruptionHeld,
            Self::AddressInUse(_) => Reason::AddressInUse,
            Self::AddressSwap(_) => Reason::AddressSwap,
            Self::AttributeConflict { .. } => Reason::AttributeConflict,
            // NoRecord occurs only outside of a cluster, where there is no status.
            Self::KeyNeverExpires | Self::NoRecord | Self::JoinTimeUnknown | Self::ClockSkew(_) => {
                Reason::ActionHeld
            }
            Self::TooManyExpiries => Reason::TooManyDevices,
            Self::NameTaken(_) => Reason::NameTaken,
            Self::WouldUnselect(_) => Reason::SelectorFeedback,
            // NotInApprovedPlan occurs only in `tsdp apply`, outside of a cluster.
            Self::Approval(_) | Self::NotInApprovedPlan => Reason::AwaitingApproval,
            Self::Limit(_) => Reason::LimitHeld,
            Self::Unreadable(_) => Reason::DeviceUnreadable,
            Self::LockedOut(_) => Reason::NotEffective,
            Self::Protected => Reason::Protected,
            Self::NotAllowed(_) => Reason::NotAllowed,
            Self::Suspended(_) => Reason::Suspended,
            Self::Observed => Reason::Observed,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disruption(disruption) => f.write_str(of_disruption(*disruption)),
            Self::AddressInUse(by) => {
                write!(
                    f,
                    "{by} has this address: give that device another address first"
                )
            }
            Self::AddressSwap(others) => write!(
                f,
                "{} must give it up first, and in the end this device must give up its own: the API does \
                not swap addresses, and no device may be without one meanwhile. Declare a free address \
                for one of them first",
                others.join(", which waits for ")
            ),
            Self::AttributeConflict {
                attribute_type,
                same_key,
                device,
            } => write_attribute_conflict(f, attribute_type, *same_key, device),
            Self::NameTaken(by) => write!(f, "{by} has this name: rename that device first"),
            Self::Approval(hash) => write_approval(f, hash.as_ref()),
            Self::Limit(plan) => write_limit(f, plan.as_deref()),
            Self::NotInApprovedPlan => {
                f.write_str("the approved plan does not contain it: make another plan")
            }
            Self::Suspended(suspender) => f.write_str(of_suspender(*suspender)),
            Self::Protected => f.write_str(PROTECTED),
            Self::NotAllowed(suggested_rule) => write_not_allowed(f, suggested_rule),
            Self::Observed => {
                f.write_str("the policy only observes: write enforcement: Enforce to allow it")
            }
            Self::Unreadable(fields) => write!(
                f,
                "it depends on what the API reports in a form that cannot be read ({fields}), which is \
                 unknown. Nothing that depends on it is sent until it can be read"
            ),
            Self::LockedOut(error) => write!(
                f,
                "tailnet lock keeps the device out ({error}): sign the device with tailscale lock sign"
            ),
            Self::KeyNeverExpires => f.write_str(KEY_NEVER_EXPIRES),
            Self::JoinTimeUnknown => f.write_str(JOIN_TIME_UNKNOWN),
            // The same words as in the status of the tailnet, which names the cause for all policies.
            Self::ClockSkew(skew) => write!(f, "{}", ClockSkew(*skew)),
            Self::NoRecord => f.write_str(NO_RECORD),
            Self::TooManyExpiries => write!(
                f,
                "a policy can expire the keys of at most {MAX_EXPIRIES} devices at one time: narrow its \
                deviceSelector, and write another policy for the other devices"
            ),
            Self::WouldUnselect(policy) => write!(
                f,
                "with these tags, {policy} would no longer match the device: correct its device or \
                deviceSelector, or the declared tags"
            ),
        }
    }
}

fn of_disruption(disruption: Disruption) -> &'static str {
    match disruption {
        Disruption::Deauthorize => {
            "takes the device out of the tailnet: write allowDisruption: [Deauthorize] to allow it"
        }
        Disruption::ExpiredKey => {
            "the key's expiry lies in the past, so the device would be cut off until someone \
             logs in to it: write allowDisruption: [ExpiredKey] to allow it"
        }
        Disruption::FirstTag => {
            "the first tag takes the device from its user, and no request gives it back: write \
             allowDisruption: [FirstTag] to allow it"
        }
    }
}

fn of_suspender(suspender: Suspender) -> &'static str {
    match suspender {
        Suspender::Policy => "the policy is suspended: write suspend: false to allow it",
        Suspender::Invalid => "the policy is invalid: correct it",
        Suspender::Identity => {
            "someone else has signed in on the bound device: approve the device to allow it"
        }
        Suspender::Tailnet => {
            "the TailscaleTailnet is suspended: write suspend: false there to allow it"
        }
    }
}

fn write_attribute_conflict(
    f: &mut fmt::Formatter<'_>,
    attribute_type: &AttributeType,
    same_key: bool,
    device: &str,
) -> fmt::Result {
    let AttributeType { key, kind } = attribute_type;
    if same_key {
        return write!(
            f,
            "{device} has {key}, of type {kind}, and the API fixes the type of a key for the whole tailnet \
             by its first write: declare it as {kind}, or declare another key"
        );
    }
    write!(
        f,
        "{device} has {key}, and keys that differ only in case are one key for the API: declare {key}, \
         or delete it on all devices"
    )
}

fn write_approval(f: &mut fmt::Formatter<'_>, hash: Option<&PlanHash>) -> fmt::Result {
    match hash {
        Some(hash) => write!(
            f,
            "it must be approved: annotate the policy with {APPROVE}: plan:{hash}"
        ),
        None => f.write_str("it must be approved: it becomes part of the next held plan"),
    }
}

fn write_limit(f: &mut fmt::Formatter<'_>, plan: Option<&LimitedPlan>) -> fmt::Result {
    let Some(plan) = plan else {
        return f
            .write_str("it would exceed maxChangedDevices: it becomes part of the next held plan");
    };
    let (devices, limit) = (counted(plan.devices, "device"), plan.limit);
    write!(f, "{devices} would change, the limit is {limit} per hour")?;
    match (plan.declared, plan.is_share) {
        (Some(declared), true) => write!(f, " (a namespace's share of {declared})")?,
        (Some(declared @ ChangeLimit::Percent(_)), false) => write!(f, " ({declared})")?,
        _ => {}
    }
    f.write_str(": raise maxChangedDevices or approve ")?;
    match &plan.hash {
        Some(hash) => write!(f, "plan:{hash}"),
        None => f.write_str("the plan"),
    }
}

fn write_not_allowed(f: &mut fmt::Formatter<'_>, suggested_rule: &str) -> fmt::Result {
    f.write_str("no rule of the TailscaleTailnet allows it on this device")?;
    if suggested_rule.is_empty() {
        return Ok(());
    }
    write!(f, "; this rule would: {suggested_rule}")
}
