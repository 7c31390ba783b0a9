//! The status of a policy and of a tailnet, as pure functions of the old status, a report and the
//! time.

mod actions;
mod approval;
mod clear;
pub(in crate::controller) mod conditions;
mod fleet;
mod recorded;
mod rules;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(in crate::controller) use self::approval::{deletions, recent, reserved};
use crate::{
    api::{
        DeviceStatus, Enforcement, PendingChange, Reason, TailscaleDevicePolicyStatus,
        TailscaleTailnetStatus,
    },
    plan::{Binding, Conflict, ConflictKind, Difference, Field, Forbidden, Hold, Mode, Suspender},
    tailnet::{DETAILS, DeviceReport, Failure, PolicyReport, Retry, State, TailnetReport},
    tailscale::Ability,
};
use conditions::{Conditions, ReadyState};

/// The status of a policy. Equal to `old` if nothing has changed, so that nothing is written.
#[must_use]
pub fn of_policy(
    old: &TailscaleDevicePolicyStatus,
    report: &PolicyReport,
    tailnet: &str,
    now: Timestamp,
) -> TailscaleDevicePolicyStatus {
    let mut conditions = Conditions::new(&old.conditions, report.generation, now);
    let ready = match (report.mode, &report.state) {
        (Mode::Enforce | Mode::Approve | Mode::Observe, state)
        | (_, state @ (State::Invalid(_) | State::NotAllowed(_) | State::Deleting(_))) => {
            let ready = clear::ready_state(ready_state(state), report);
            let ready = approval::explain(ready, report, tailnet);
            let ready = clear::explain(ready, report);
            let ready = actions::explain(ready, report);
            let ready = recorded::explain(ready, report);
            let ready = rules::within(ready, report);
            conditions.set_ready(&ready);
            ready
        }
        (Mode::Suspended(by), _) => {
            let ready = suspended(by, tailnet);
            conditions.set_suspended(&ready);
            ready
        }
    };
    match &report.state {
        State::Invalid(_) | State::NotAllowed(_) => conditions.refused(&ready),
        _ => conditions.accepted(),
    }
    match clear::in_sync(in_sync(&report.state), report) {
        Known::Yes => conditions.in_sync(),
        Known::No(message) => conditions.out_of_sync(&message),
        Known::NotYet => conditions.sync_unknown(&ready),
        Known::AsBefore => conditions.keep_in_sync(&ready),
    }
    let mut status = TailscaleDevicePolicyStatus {
        observed_generation: Some(report.generation),
        conditions: conditions.finish(),
        tailnet: Some(tailnet.to_owned()),
        enforcement: enforcement(report.mode)
            .map(|enforcement| enforcement.as_str().to_owned())
            .or(old.enforcement.clone()),
        last_change_time: report
            .changed_at
            .map(whole_second)
            .or(old.last_change_time.clone()),
        ..TailscaleDevicePolicyStatus::default()
    };
    recorded::describe(&mut status, report);
    describe(&mut status, &report.state, old, &ready);
    approval::describe(&mut status, report);
    clear::describe(&mut status, report);
    actions::describe(&mut status, report);
    status
}

/// The status of a tailnet.
#[must_use]
pub fn of_tailnet(
    old: &TailscaleTailnetStatus,
    report: &TailnetReport,
    generation: i64,
    now: Timestamp,
) -> TailscaleTailnetStatus {
    let ready = match (&report.failure, report.devices) {
        (Some(failure), _) => failed(failure),
        (None, None) => ReadyState::working(
            Reason::NotStarted,
            "The controller is reading the first list of devices.",
        ),
        (None, Some(_)) if report.suspended => ReadyState::done(
            Reason::Suspended,
            "The controller can read the tailnet's devices. The tailnet is suspended: nothing is sent for \
             its policies. Set spec.suspend to false to continue.",
        ),
        (None, Some(_)) => ReadyState::done(Reason::Connected, connected(&report.missing_scopes)),
    };
    let ready = actions::with_clock(ready, report.clock_skew);
    let mut conditions = Conditions::new(&old.conditions, generation, now);
    conditions.set_ready(&ready);
    let mut status = TailscaleTailnetStatus {
        observed_generation: Some(generation),
        conditions: conditions.finish(),
        tailnet: report.domain.clone().or(old.tailnet.clone()),
        devices: report.devices.map(count).or(old.devices),
        policies: Some(count(report.policies)),
        missing_scopes: report
            .missing_scopes
            .iter()
            .map(|lack| lack.scope().to_owned())
            .collect(),
        attributes_interval: Some(format!("{}s", report.attributes_interval.as_secs())),
        ..TailscaleTailnetStatus::default()
    };
    approval::describe_tailnet(&mut status, report, old);
    status
}

/// States that the tailnet can be read, and which scopes the credential lacks, before a policy
/// needs them.
fn connected(lacks: &BTreeSet<Ability>) -> String {
    let can_be_read = "The controller can read the tailnet's devices.";
    if lacks.is_empty() {
        return can_be_read.to_owned();
    }
    let missing = lacks.iter().map(|lack| {
        let fields = match lack {
            Ability::Devices => {
                "authorized, tags, keyExpiry, name, ipv4, expireKeyAt and deleteInactive"
            }
            Ability::Routes => "enabledRoutes and exitNode",
            Ability::Attributes => "postureAttributes",
        };
        format!("for {fields} add the scope {}", lack.scope())
    });
    let missing = missing.collect::<Vec<_>>().join("; ");
    format!("{can_be_read} The credential lacks scopes: {missing}.")
}

/// The mode as a manifest writes it. While a policy is suspended, the status keeps the last value.
fn enforcement(mode: Mode) -> Option<Enforcement> {
    match mode {
        Mode::Enforce => Some(Enforcement::Enforce),
        Mode::Approve => Some(Enforcement::Approve),
        Mode::Observe => Some(Enforcement::Observe),
        Mode::Suspended(_) => None,
    }
}

fn suspended(by: Suspender, tailnet: &str) -> ReadyState {
    let message = match by {
        Suspender::Policy => {
            "The policy is suspended: nothing is sent for it. Set spec.suspend to false to continue."
                .to_owned()
        }
        Suspender::Invalid => {
            "The policy is invalid: nothing is sent for it. Correct it.".to_owned()
        }
        Suspender::Tailnet => format!(
            "The TailscaleTailnet {tailnet} is suspended: nothing is sent for its policies. Set its \
             spec.suspend to false to continue."
        ),
    };
    ReadyState::done(Reason::Suspended, message)
}

/// The policy itself is refused.
fn not_allowed(forbidden: &Forbidden) -> ReadyState {
    ReadyState::stalled(
        Reason::NotAllowed,
        format!("{forbidden}. Nothing is sent until then."),
    )
}

fn ready_state(state: &State) -> ReadyState {
    match state {
        State::Invalid(errors) => ReadyState::stalled(Reason::Invalid, errors.join("; ")),
        State::NotAllowed(forbidden) => not_allowed(forbidden),
        State::Starting => ReadyState::working(
            Reason::NotStarted,
            "The controller is reading the first list of devices.",
        ),
        State::Unavailable(failure) => failed(failure),
        State::Unbound { named, binding } => approval::of_binding(unbound(named, binding), binding),
        State::Bound(report) => bound(report),
        State::Selector(report) => fleet::ready_state(report),
        State::TooMany(devices) => clear::too_many(*devices),
        State::Deleting(_) => clear::deleting(),
    }
}

pub(in crate::controller) fn failed(failure: &Failure) -> ReadyState {
    match failure.retry {
        Retry::Never => ReadyState::stalled(failure.reason, &failure.message),
        Retry::Later | Retry::After(_) => ReadyState::retrying(failure.reason, &failure.message),
    }
}

pub(in crate::controller) fn unbound(named: &str, binding: &Binding) -> ReadyState {
    let (reason, message) = match binding {
        Binding::NotFound | Binding::Device(_) | Binding::Selector(_) => (
            Reason::DeviceNotFound,
            format!(
                "No device of the tailnet has the {named}. Nothing is sent. Correct spec.device, or \
                 bring the device into the tailnet."
            ),
        ),
        Binding::Missing(node) => (
            Reason::DeviceNotFound,
            format!(
                "The last lists of devices lack {node}, the bound device with the {named}, and the API has \
                 not confirmed that it has left the tailnet. Nothing is sent to it, and no other device \
                 takes its place, until a list has it again or the API confirms that it is gone."
            ),
        ),
        Binding::Unmet { node, lacks } => (
            Reason::DeviceNotFound,
            format!(
                "The device with the {named} is {node}, but {lacks}, as spec.device requires. Nothing \
                 is sent until it does."
            ),
        ),
        Binding::Ambiguous(nodes) => (
            Reason::Ambiguous,
            format!(
                "{} devices have the {named}: {}. Nothing is sent. Write spec.device.nodeId instead.",
                nodes.len(),
                nodes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        ),
        Binding::IdentityChanged {
            bound,
            owner,
            found,
            found_owner,
        } => (
            Reason::IdentityChanged,
            format!(
                "The bound device {bound} (owner: {owner}) is gone, and {found} (owner: {found_owner}) \
                 has the {named} now. The policy does not follow it, as the owners differ. Nothing is \
                 sent. If it is the right device, write spec.device.nodeId: {found}."
            ),
        ),
    };
    ReadyState::retrying(reason, message)
}

fn bound(report: &DeviceReport) -> ReadyState {
    let called = format!("{} ({})", report.label, report.node);
    if !report.conflicts.is_empty() {
        let lost: Vec<_> = report.conflicts.iter().map(ToString::to_string).collect();
        let of_this_device = |lost: &Conflict| lost.kind == ConflictKind::Field;
        let first = if report.conflicts.iter().all(of_this_device) {
            format!("Another policy declares another value for {called} and takes precedence")
        } else {
            format!("Another policy takes precedence over this one, which targets {called}")
        };
        let message = format!(
            "{first}: this policy yields {}. Edit one of them.",
            lost.join(", ")
        );
        return if report.working {
            ReadyState::retrying(Reason::Conflicted, message)
        } else {
            ReadyState::stalled(Reason::Conflicted, message)
        };
    }
    if let Some(failure) = worst(report) {
        return ReadyState {
            message: failures(report),
            ..failed(failure)
        };
    }
    if let Some(ready) = held(report, &called).filter(|_| !report.working) {
        return ready;
    }
    if report.working || report.unread {
        return ReadyState::working(
            Reason::Progressing,
            format!("The controller is applying the desired state to {called}."),
        );
    }
    if let Some(ready) = deleting(&report.differences) {
        return ready;
    }
    if let Some(difference) = report.differences.first() {
        let change = &difference.change;
        return ReadyState::retrying(
            Reason::DependencyNotReady,
            format!(
                "{called}: {change} waits until the settings of the device's other policies are in \
                 sync. Check those of them that are held, suspended or failing."
            ),
        );
    }
    if report.expired.is_empty() {
        return ReadyState::done(Reason::InSync, format!("{called} is in sync."));
    }
    let keys: Vec<_> = report.expired.iter().map(ToString::to_string).collect();
    let keys = keys.join(", ");
    ReadyState::done(
        Reason::InSync,
        format!("{called} is in sync. No longer declared, as the expiry has passed: {keys}."),
    )
}

/// A deletion waits for a complete list of devices.
fn deleting(differences: &[Difference]) -> Option<ReadyState> {
    let deletion = |difference: &&Difference| difference.change.field() == Field::DeleteInactive;
    let first = differences.iter().find(deletion)?;
    Some(ReadyState::working(
        Reason::Progressing,
        format!(
            "The controller is about to delete {} ({}), as it is inactive: once a list of devices has \
             about as many devices as the one before.",
            first.device, first.node
        ),
    ))
}

/// The first difference that is held, and what releases it.
fn held(report: &DeviceReport, called: &str) -> Option<ReadyState> {
    let mut differences = report.differences.iter();
    let (change, hold) =
        differences.find_map(|difference| Some((&difference.change, difference.hold.as_ref()?)))?;
    let message = format!("{called}: {change} is held: {hold}.");
    Some(match hold {
        Hold::Disruption(_) => ReadyState::retrying(Reason::DisruptionHeld, message),
        Hold::AddressInUse(_) => ReadyState::retrying(Reason::AddressInUse, message),
        Hold::AddressSwap(_) => ReadyState::stalled(Reason::AddressSwap, message),
        Hold::AttributeConflict { .. } => ReadyState::retrying(Reason::AttributeConflict, message),
        // NoRecord occurs only outside of a cluster, where there is no status.
        Hold::KeyNeverExpires | Hold::NoRecord | Hold::JoinTimeUnknown | Hold::ClockSkew(_) => {
            ReadyState::retrying(Reason::ActionHeld, message)
        }
        Hold::TooManyExpiries => ReadyState::stalled(Reason::TooManyDevices, message),
        Hold::NameTaken(_) => ReadyState::retrying(Reason::NameTaken, message),
        Hold::WouldUnselect(_) => ReadyState::stalled(Reason::SelectorFeedback, message),
        // NotInApprovedPlan occurs only in `tsdp apply`, outside of a cluster.
        Hold::Approval(_) | Hold::NotInApprovedPlan => {
            ReadyState::retrying(Reason::AwaitingApproval, message)
        }
        Hold::Limit(_) => ReadyState::retrying(Reason::LimitHeld, message),
        Hold::Protected => ReadyState::stalled(Reason::Protected, message),
        Hold::NotAllowed(_) => ReadyState::stalled(Reason::NotAllowed, message),
        // The mode of the report states who suspended the policy.
        Hold::Suspended(_) => ReadyState::done(Reason::Suspended, message),
        Hold::Observed => ReadyState::done(Reason::Observed, observed(report, called)),
    })
}

fn observed(report: &DeviceReport, called: &str) -> String {
    let differences = counted(report.differences.len(), "difference");
    format!(
        "{called} has {differences}, listed under status.pending. Nothing is sent, as the \
         policy only observes. Write enforcement: Enforce to apply the desired state."
    )
}

/// The failure that determines the reason: one that only an edit fixes comes before one that time
/// may fix.
fn worst(report: &DeviceReport) -> Option<&Failure> {
    let all = || report.failures.iter().map(|(_, failure)| failure);
    all()
        .find(|failure| failure.retry == Retry::Never)
        .or_else(|| all().next())
}

fn failures(report: &DeviceReport) -> String {
    let reported = report.failures.iter().map(|(field, failure)| match field {
        Some(field) => format!("{field}: {}", failure.message),
        None => failure.message.clone(),
    });
    reported.collect::<Vec<_>>().join(" ")
}

/// Whether the device is in sync, as far as is known.
enum Known {
    Yes,
    No(String),
    NotYet,
    AsBefore,
}

fn in_sync(state: &State) -> Known {
    match state {
        State::Bound(report) if !report.differences.is_empty() => {
            let changes = report
                .differences
                .iter()
                .map(|difference| difference.change.to_string());
            Known::No(changes.take(DETAILS).collect::<Vec<_>>().join("; "))
        }
        State::Bound(report) if !report.conflicts.is_empty() => {
            Known::No("Another policy overrides a field that this policy declares.".to_owned())
        }
        State::Bound(report) if report.unread => Known::NotYet,
        State::Bound(_) => Known::Yes,
        State::Selector(report) => fleet::in_sync(report),
        State::Unavailable(_) | State::Deleting(_) => Known::AsBefore,
        State::Invalid(_)
        | State::NotAllowed(_)
        | State::Starting
        | State::Unbound { .. }
        | State::TooMany(_) => Known::NotYet,
    }
}

fn describe(
    status: &mut TailscaleDevicePolicyStatus,
    state: &State,
    old: &TailscaleDevicePolicyStatus,
    ready: &ReadyState,
) {
    match state {
        State::Bound(report) => {
            let as_declared =
                report.differences.is_empty() && report.conflicts.is_empty() && !report.unread;
            status.matched_devices = Some(1);
            status.in_sync_devices = Some(u32::from(as_declared));
            status.devices = vec![DeviceStatus {
                node_id: report.node.to_string(),
                name: report.label.clone(),
                in_sync: as_declared,
                reason: (!as_declared).then(|| ready.reason.to_string()),
                message: None,
            }];
            status.pending = report
                .differences
                .iter()
                .take(DETAILS)
                .map(pending)
                .collect();
            let total = count(report.differences.len());
            status.pending_total = (total > 0).then_some(total);
        }
        State::Selector(report) => fleet::describe(status, report),
        // The last poll stays valid while the tailnet cannot be read.
        State::Unavailable(_) => {
            status.matched_devices = old.matched_devices;
            status.in_sync_devices = old.in_sync_devices;
            status.devices.clone_from(&old.devices);
            status.pending.clone_from(&old.pending);
            status.pending_total = old.pending_total;
        }
        State::Unbound { .. } | State::Invalid(_) | State::NotAllowed(_) => {
            status.matched_devices = Some(0);
            status.in_sync_devices = Some(0);
        }
        State::TooMany(devices) => {
            status.matched_devices = Some(count(*devices));
            status.in_sync_devices = Some(0);
        }
        State::Starting | State::Deleting(_) => {}
    }
}

fn pending(difference: &Difference) -> PendingChange {
    PendingChange {
        device: difference.node.to_string(),
        name: difference.device.clone(),
        field: difference.change.field().to_string(),
        before: difference.change.before(),
        after: difference.change.after(),
        reason: difference.why.to_string(),
        held: difference.hold.as_ref().map(ToString::to_string),
    }
}

/// Kubernetes stores times without fractions of a second.
fn whole_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// `1 device`, `3 devices`.
fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
