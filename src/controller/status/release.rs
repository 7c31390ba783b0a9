//! The devices that a policy has released under `deletionPolicy: Clear`, in its status.

use super::{
    conditions::SyncState,
    device::pending,
    ready_state::{Progress, ReadyState},
    text::{count, counted},
};
use crate::{
    api::{Reason, TailscaleDevicePolicyStatus},
    plan::{ApprovedOn, MAX_MANAGED},
    tailnet::{ClearReport, DETAILS, PolicyReport, State},
};

/// A policy is not done while a device that it released is not cleared. If that change is held, the
/// message says so as for any other change.
pub(super) fn ready_state(ready: ReadyState, report: &PolicyReport) -> ReadyState {
    let deleting = matches!(report.state, State::Deleting(_));
    let unfinished = deleting || ready.progress() == Progress::Done;
    match &report.clearing {
        Some(clearing) if unfinished => {
            let reason = held(clearing).unwrap_or(Reason::Clearing);
            let message = format!("{}{}", begin(report), left(clearing));
            ReadyState::retrying(reason, message)
        }
        _ => ready,
    }
}

fn begin(report: &PolicyReport) -> &'static str {
    if matches!(report.state, State::Deleting(_)) {
        "The policy is being deleted. "
    } else {
        ""
    }
}

/// The reason of the hold, if an approval releases the devices.
fn held(clearing: &ClearReport) -> Option<Reason> {
    let mut holds = clearing
        .differences
        .iter()
        .filter_map(|it| it.hold.as_ref());
    Some(match holds.find_map(ApprovedOn::releases)? {
        ApprovedOn::Policy => Reason::AwaitingApproval,
        ApprovedOn::Tailnet => Reason::LimitHeld,
    })
}

/// States before a held change that it concerns released devices, and how many.
pub(super) fn explain(ready: ReadyState, report: &PolicyReport) -> ReadyState {
    let is_held = matches!(ready.reason(), Reason::LimitHeld | Reason::AwaitingApproval);
    let (Some(clearing), Some(_), true) = (&report.clearing, &report.held, is_held) else {
        return ready;
    };
    if held(clearing).is_none() {
        return ready;
    }
    let message = format!(
        "{}{} {} Under deletionPolicy: Retain they would stay as they are.",
        begin(report),
        released(clearing),
        ready.message()
    );
    ready.with_message(message)
}

pub(super) fn deleting() -> ReadyState {
    ReadyState::retrying(Reason::Clearing, "The policy is being deleted.")
}

pub(super) fn too_many(devices: usize) -> ReadyState {
    let message = format!(
        "spec.deviceSelector matches {}, but deletionPolicy: Clear can record {MAX_MANAGED}, including released \
         ones that are not cleared yet. Nothing is sent. Narrow spec.deviceSelector, or write \
         deletionPolicy: Retain.",
        counted(devices, "device")
    );
    ReadyState::stalled(Reason::TooManyDevices, message)
}

fn left(clearing: &ClearReport) -> String {
    let blocker = match &clearing.blocker {
        Some(blocker) => format!(" {blocker}"),
        None => String::new(),
    };
    format!("{}{blocker}", released(clearing))
}

fn released(clearing: &ClearReport) -> String {
    let devices = match clearing.left {
        0 => None,
        1 => Some("one released device".to_owned()),
        many => Some(format!("{many} released devices")),
    };
    let fields = match clearing.fields {
        0 => None,
        some => Some(format!(
            "the fields that the spec no longer declares on {}",
            counted(some, "device")
        )),
    };
    let what: Vec<String> = devices.into_iter().chain(fields).collect();
    format!("The controller must still clear {}.", what.join(" and "))
}

pub(super) fn in_sync(known: SyncState, report: &PolicyReport) -> SyncState {
    let first = || report.clearing.as_ref()?.differences.first();
    match (known, first()) {
        (SyncState::Yes, Some(first)) => SyncState::No(format!(
            "{} ({}): {}",
            first.device, first.node, first.change
        )),
        (known, _) => known,
    }
}

/// Adds the settings that are still to be cleared to the pending changes.
pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    let Some(clearing) = &report.clearing else {
        return;
    };
    // Both kinds of changes share the list, and so its limit.
    let room = DETAILS.saturating_sub(status.pending.len());
    let differences = clearing.differences.iter().take(room);
    status
        .pending
        .extend(differences.map(|it| pending(it, None)));
    let total = status.pending_total.unwrap_or(0) + count(clearing.different);
    status.pending_total = (total > 0).then_some(total);
    if matches!(report.state, State::Deleting(_)) {
        status.matched_devices = Some(count(clearing.left));
        status.in_sync_devices = Some(0);
    }
}
