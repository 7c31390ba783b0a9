//! The status of a policy: the cause of its state, explained, as conditions; then the details.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    actions, approval, binding,
    conditions::{Conditions, SyncState},
    device, permissions,
    ready_state::{ReadyState, failed},
    record, release, selector, size,
    text::{count, whole_second},
};
use crate::{
    api::{Enforcement, Reason, TailscaleDevicePolicyStatus, conditions::READY},
    convert,
    plan::{Forbidden, Mode, Suspender},
    tailnet::{DETAILS, PolicyReport, State},
};

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
        // A suspension hides neither a refusal nor a deletion.
        (Mode::Enforce | Mode::Approve | Mode::Observe, _)
        | (_, State::Invalid(_) | State::NotAllowed(_) | State::Deleting(_)) => {
            let ready = explained(report, tailnet);
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
    conditions.set_in_sync(&release::in_sync(in_sync(&report.state), report), &ready);
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
    convert::write_record(
        &mut status,
        &report.record,
        &report.owned,
        &report.uid,
        report.unrecorded,
    );
    describe(&mut status, &report.state, old, &ready);
    approval::describe(&mut status, report);
    release::describe(&mut status, report);
    actions::describe(&mut status, report);
    size::fit(&mut status);
    status
}

/// Whether these conditions say that the object is ready.
pub(in crate::controller) fn is_ready(conditions: &[Condition]) -> bool {
    let mut ready = conditions.iter().filter(|it| it.type_ == READY);
    ready.any(|it| it.status == "True")
}

/// Whether a status says that changes are held, or that they wait for the identity of the device.
pub(in crate::controller) fn is_held(status: &TailscaleDevicePolicyStatus) -> bool {
    let identity = [Reason::IdentityChanged, Reason::Superseded];
    let mut ready = status.conditions.iter().filter(|it| it.type_ == READY);
    status.held_changes.is_some()
        || ready.any(|it| identity.iter().any(|reason| it.reason == reason.as_str()))
}

/// The cause of the state, and what people must know beside it.
fn explained(report: &PolicyReport, tailnet: &str) -> ReadyState {
    // The order matters: the approval replaces the message, and the later ones add to it.
    let ready = release::ready_state(cause(&report.state), report);
    let ready = approval::explain(ready, report, tailnet);
    let ready = release::explain(ready, report);
    let ready = actions::explain(ready, report);
    let ready = record::explain(ready, report);
    permissions::within(ready.complete(), report)
}

/// The state by its cause alone.
fn cause(state: &State) -> ReadyState {
    match state {
        State::Invalid(errors) => ReadyState::stalled(Reason::Invalid, errors.join("; ")),
        State::NotAllowed(forbidden) => not_allowed(forbidden),
        State::Starting => ReadyState::starting(),
        State::Unavailable(failure) => failed(failure),
        State::Unbound { named, binding, .. } => {
            binding::with_hint(binding::unbound(named, binding), binding)
        }
        State::Bound(report) => device::ready_state(report),
        State::Selector(report) => selector::ready_state(report),
        State::TooMany(devices) => release::too_many(*devices),
        State::Deleting(_) => release::deleting(),
    }
}

/// The policy itself is refused.
fn not_allowed(forbidden: &Forbidden) -> ReadyState {
    ReadyState::stalled(
        Reason::NotAllowed,
        format!("{forbidden}. Nothing is sent until then."),
    )
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
        Suspender::Identity => {
            "Someone else has signed in on the bound device: nothing is sent to it.".to_owned()
        }
        Suspender::Tailnet => format!(
            "The TailscaleTailnet {tailnet} is suspended: nothing is sent for its policies. Set its \
             spec.suspend to false to continue."
        ),
    };
    ReadyState::done(Reason::Suspended, message)
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

fn in_sync(state: &State) -> SyncState {
    match state {
        State::Bound(report) => device::in_sync(report),
        State::Selector(report) => selector::in_sync(report),
        State::Unavailable(_) | State::Deleting(_) => SyncState::AsBefore,
        State::Invalid(_)
        | State::NotAllowed(_)
        | State::Starting
        | State::Unbound { .. }
        | State::TooMany(_) => SyncState::NotYet,
    }
}

fn describe(
    status: &mut TailscaleDevicePolicyStatus,
    state: &State,
    old: &TailscaleDevicePolicyStatus,
    ready: &ReadyState,
) {
    match state {
        State::Bound(report) => device::describe(status, report, ready),
        State::Selector(report) => selector::describe(status, report),
        // The last poll stays valid while the tailnet cannot be read.
        State::Unavailable(_) => {
            status.matched_devices = old.matched_devices;
            status.in_sync_devices = old.in_sync_devices;
            status.devices.clone_from(&old.devices);
            status.pending.clone_from(&old.pending);
            status.pending_total = old.pending_total;
            status.held_changes = old.held_changes;
        }
        State::Unbound { differences, .. } => {
            status.matched_devices = Some(0);
            status.in_sync_devices = Some(0);
            let pending = differences.iter().map(|it| device::pending(it, None));
            status.pending = pending.take(DETAILS).collect();
            status.pending_total = (!differences.is_empty()).then(|| count(differences.len()));
        }
        State::Invalid(_) | State::NotAllowed(_) => {
            status.matched_devices = Some(0);
            status.in_sync_devices = Some(0);
        }
        State::TooMany(devices) => {
            status.matched_devices = Some(count(*devices));
            status.in_sync_devices = Some(0);
        }
        // `release::describe` writes the numbers of a deletion; at the start, none are known.
        State::Starting | State::Deleting(_) => {}
    }
}
