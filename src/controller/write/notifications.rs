//! What happens to a policy, as a log line and an Event.

use tracing::debug;

use super::event::{Event, normal, warning};
use crate::{
    api::{APPROVE, Reason, TailscaleDevicePolicyStatus},
    controller::status,
    model::{NodeId, UnreadableDevices, counted, printable},
    plan::{ApprovedOn, Change, ChangeCause, Difference, PolicyKey},
    tailnet::{Abandoned, HeldPlan, MissedExpiry, Notification},
};

/// The Event that reports the fields that an edit released, with a log line of the same words. The status
/// remembers them, so that each edit is reported once.
pub(super) fn of_release(
    key: &PolicyKey,
    old: &TailscaleDevicePolicyStatus,
    new: &TailscaleDevicePolicyStatus,
) -> Option<Event> {
    let released = new.released_fields.as_ref()?;
    let before = old.released_fields.as_ref();
    if before.is_some_and(|before| {
        before.fields == released.fields && before.generation == released.generation
    }) {
        return None;
    }
    let (stays, them) = match released.count {
        1 => ("Its value stays as it is", "it"),
        _ => ("Their values stay as they are", "them"),
    };
    let devices = match released.devices {
        0 => String::new(),
        some => format!(" on {}", counted(some, "device")),
    };
    let note = format!(
        "The spec no longer declares {}. {stays}{devices}, unless another policy declares {them}.",
        released.fields.join(", ")
    );
    let event = normal("Released", "Release", &note);
    event.log_of(key);
    Some(event)
}

/// Logs what happened, and returns the Event that reports it, if it is one.
pub(super) fn log(key: &PolicyKey, tailnet: &str, notification: &Notification) -> Option<Event> {
    let event = match notification {
        Notification::Changed(difference) => changed(difference),
        // The transition of `Ready` reports it, once for all devices (see `transitions`).
        Notification::Failed {
            device,
            field,
            failure,
        } => {
            let (device, message) = (printable(device), printable(&failure.message));
            debug!(policy = %key, %device, %field, reason = %failure.reason, "{message}");
            return None;
        }
        Notification::Held(plan) => held(key, tailnet, plan),
        Notification::Flapping { node, label } => {
            let note = status::flapping(node, label);
            warning(Reason::Contested.as_str(), "Wait", &note)
        }
        Notification::SignedIn {
            node,
            label,
            is_cleared,
        } => {
            let note = signed_in(node, label, *is_cleared);
            warning(Reason::IdentityChanged.as_str(), "Release", &note)
        }
        Notification::Approved(plan) => approved(plan),
        Notification::Missed(missed) => self::missed(missed),
    };
    event.log_of(key);
    Some(event)
}

/// Without the new owner: the author of the policy may not be allowed to learn it.
fn signed_in(node: &NodeId, label: &str, is_cleared: bool) -> String {
    let cleared = if is_cleared {
        " Nothing is cleared on it until two more lists of devices confirm its new owner."
    } else {
        ""
    };
    format!(
        "Someone has signed in on {label} ({node}) again: it has lost its tags or has another user, and \
         spec.deviceSelector no longer matches it. Nothing is sent to it.{cleared} If that is not right, check \
         the device, and give it its tags again."
    )
}

/// The set of devices that cannot be read completely has changed.
pub(super) fn log_unreadable(tailnet: &str, unreadable: &UnreadableDevices) -> Event {
    let note = format!(
        "The API reports devices in a form that cannot be read: {unreadable}. What depends on these \
         fields waits until they can be read; other fields and devices go on. If that lasts, report it."
    );
    let event = warning(Reason::DeviceUnreadable.as_str(), "Read", &note);
    event.log_of_tailnet(tailnet);
    event
}

/// A deleted policy leaves settings behind.
pub(super) fn log_abandoned(key: &PolicyKey, abandoned: &Abandoned) -> Event {
    let note = kept(abandoned);
    let event = warning("NotCleared", "Delete", &note);
    event.log_of(key);
    event
}

fn changed(difference: &Difference) -> Event {
    let (device, change) = (&difference.device, &difference.change);
    let (reason, note) = match difference.cause {
        Some(ChangeCause::Drift) => ("DriftCorrected", restored(device, change)),
        Some(ChangeCause::Joined) => (changed_what(change), format!("{device} (joined): {change}")),
        Some(ChangeCause::Declared | ChangeCause::Released) | None => {
            let why = difference.why;
            (changed_what(change), format!("{device} ({why}): {change}"))
        }
    };
    normal(reason, "Change", &note).caused_by(difference.cause)
}

/// `fra-router: tags: found tag:db, restored tag:router`.
fn restored(device: &str, change: &Change) -> String {
    let (field, before, after) = (change.field(), change.before(), change.after());
    format!("{device}: {field}: found {before}, restored {after}")
}

/// The reason of the Event of a declared change.
fn changed_what(change: &Change) -> &'static str {
    match change {
        Change::Setting { after, .. } => after.event(),
        Change::List(change) => change.setting().event(),
        Change::Attribute { after: Some(_), .. } => "AttributeSet",
        Change::Attribute { after: None, .. } => "AttributeDeleted",
        Change::ExpireKey { .. } => "KeyExpired",
        Change::Delete { .. } => "DeviceDeleted",
        // Not reached, as such a change is never sent.
        Change::NotCompared { .. } => "Changed",
    }
}

/// With the command that approves the plan, as a person can run it.
fn held(key: &PolicyKey, tailnet: &str, plan: &HeldPlan) -> Event {
    let (namespace, name, hash) = (&key.namespace, &key.name, &plan.hash);
    let (reason, why, object) = match plan.on {
        ApprovedOn::Policy => (
            Reason::AwaitingApproval,
            "the policy has enforcement: Approve".to_owned(),
            format!("-n {namespace} annotate tsdp {name}"),
        ),
        ApprovedOn::Tailnet => (
            Reason::LimitHeld,
            limit(plan),
            format!("annotate tstn {tailnet}"),
        ),
    };
    let (changes, devices) = (
        counted(plan.changes, "change"),
        counted(plan.devices, "device"),
    );
    let verb = if plan.changes == 1 { "waits" } else { "wait" };
    let note = format!(
        "{changes} of {devices} {verb} for approval: {why}. To approve the plan, run: kubectl {object} \
         --overwrite {APPROVE}=plan:{hash}"
    );
    warning(reason.as_str(), "Hold", &note)
}

/// The limit that holds a plan, with its number.
fn limit(plan: &HeldPlan) -> String {
    match (plan.share, plan.limit) {
        (Some(share), Some(most)) => format!(
            "the limit is {most} devices per hour, of which one namespace can change {share}"
        ),
        (_, Some(most)) => format!("the limit is {} per hour", counted(most, "device")),
        (_, None) => "the limit was raised after the plan was frozen".to_owned(),
    }
}

/// Only the API server's audit log records who set the annotation.
fn approved(plan: &HeldPlan) -> Event {
    let note = format!("plan:{}: {}", plan.hash, counted_in(plan));
    normal("Approved", "Approve", &note)
}

/// `fra-laptop and 2 others: expireKeyAt 2026-12-01T18:00:00Z is missed: …`
fn missed(missed: &MissedExpiry) -> Event {
    // Some of the names and the exact total, as a note has at most 1,024 bytes.
    let named = missed.devices.join(", ");
    let others = match missed.total.saturating_sub(missed.devices.len()) {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        many => format!(" and {many} others"),
    };
    let note = format!(
        "{named}{others}: expireKeyAt {} is missed: {}. Write a later time to expire the key.",
        missed.at, missed.why
    );
    warning("ExpiryMissed", "Expire", &note)
}

/// `changes: 12, devices: 3`.
fn counted_in(plan: &HeldPlan) -> String {
    format!("changes: {}, devices: {}", plan.changes, plan.devices)
}

/// The settings that stay, their devices, and the reason.
fn kept(abandoned: &Abandoned) -> String {
    let mut devices = abandoned.devices.join(", ");
    let more = abandoned.total.saturating_sub(abandoned.devices.len());
    if more > 0 {
        devices = format!("{devices} and {more} more");
    }
    let keys = abandoned.settings.keys.iter().map(ToString::to_string);
    let routes = abandoned.settings.routes.iter().map(ToString::to_string);
    let what = keys.chain(routes).collect::<Vec<_>>().join(", ");
    let keep = if abandoned.total == 1 {
        "keeps"
    } else {
        "keep"
    };
    format!(
        "{devices} {keep} the settings of the policy ({what}): {}",
        abandoned.why
    )
}
