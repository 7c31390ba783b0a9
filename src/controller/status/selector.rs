//! The status of a policy with a selector.

use std::collections::BTreeSet;

use super::{
    conditions::SyncState,
    device::{
        self, called, deleting, failures, holds, is_as_declared, pending, pending_conflict, worst,
    },
    ready_state::{Progress, ReadyState, failed},
    text::{count, counted, expired},
};
use crate::{
    api::{DeviceStatus, PendingChange, Reason, TailscaleDevicePolicyStatus},
    model::NodeId,
    plan::Difference,
    tailnet::{DETAILS, DeviceReport, SelectorReport},
};

/// The number of causes that a condition names.
const MAX_CAUSES: usize = 6;

/// The number of devices that a condition names.
const NAMED: usize = 3;

/// What can keep the devices from being in sync, the most important first.
const CAUSES: [fn(&SelectorReport) -> Option<ReadyState>; 7] = [
    no_devices,
    overridden,
    failing,
    held_at_rest,
    progressing,
    about_to_be_deleted,
    dependent,
];

/// The first cause determines the state. Errors of the selector and unsteady devices are added to it.
pub(super) fn ready_state(report: &SelectorReport) -> ReadyState {
    let causes = CAUSES.iter().filter_map(|cause| cause(report));
    let ready = device::first_with_others(causes).unwrap_or_else(|| as_declared(report));
    with_flapping(with_selector_errors(ready, report), report)
}

fn with_selector_errors(ready: ReadyState, report: &SelectorReport) -> ReadyState {
    let Some(errors) = &report.selector_errors else {
        return ready;
    };
    let (them, first) = match errors.count {
        1 => ("it", "It"),
        _ => ("them", "The first"),
    };
    ready.and(&format!(
        " spec.deviceSelector.expression cannot be evaluated for {}, so that the policy does not target \
         {them}. {first} is {} ({}): {}.",
        counted(errors.count, "device"),
        errors.label,
        errors.node,
        errors.error
    ))
}

fn with_flapping(ready: ReadyState, report: &SelectorReport) -> ReadyState {
    let Some(first) = &report.flapping else {
        return ready;
    };
    let reported = flapping(&first.node, &first.label);
    let others = match first.count {
        1 => String::new(),
        many => format!(
            " The same applies to {}.",
            counted(many - 1, "other device")
        ),
    };
    // Devices in sync are no success while a machine decides whether the policy applies to it.
    if ready.progress() == Progress::Done {
        return ReadyState::retrying(Reason::Contested, format!("{reported}{others}"));
    }
    ready.and(&format!(" {reported}{others}"))
}

/// A machine that keeps changing whether a selector matches it.
pub(in crate::controller) fn flapping(node: &NodeId, label: &str) -> String {
    format!(
        "{label} ({node}) keeps changing the hostname, OS or version that it reports, and so whether \
         spec.deviceSelector matches it: more than three times within an hour. Its membership stays as it is \
         until the selector has given the same result for 15 minutes. Select by tags or users, which a machine \
         does not choose, or check the machine."
    )
}

fn no_devices(report: &SelectorReport) -> Option<ReadyState> {
    if report.matched > 0 {
        return None;
    }
    let unmatched = report.unmatched.iter().take(NAMED);
    let unmatched: Vec<String> = unmatched.map(ToString::to_string).collect();
    let now = match unmatched.as_slice() {
        [] => "No device of the tailnet matches spec.deviceSelector now.".to_owned(),
        some => {
            let why = some.join("; ");
            let end = if why.ends_with('?') { "" } else { "." };
            format!("No device of the tailnet matches spec.deviceSelector now: {why}{end}")
        }
    };
    let message = format!("{now} The policy adopts one that joins at the next poll.");
    Some(ReadyState::done(Reason::NoDevices, message))
}

fn overridden(report: &SelectorReport) -> Option<ReadyState> {
    if report.conflicted == 0 {
        return None;
    }
    let message = some(
        report,
        report.conflicted,
        ["has an overridden field", "have an overridden field"],
        |device| (!device.conflicts.is_empty()).then(|| device::ready_state(device).into_message()),
    );
    Some(if report.working > 0 {
        ReadyState::retrying(Reason::Conflicted, message)
    } else {
        ReadyState::stalled(Reason::Conflicted, message)
    })
}

fn held_at_rest(report: &SelectorReport) -> Option<ReadyState> {
    holding(report).filter(|_| report.working == 0)
}

fn progressing(report: &SelectorReport) -> Option<ReadyState> {
    if report.working == 0 && report.unread == 0 {
        return None;
    }
    let message = format!(
        "{} in sync; the controller is applying the desired state to the others.",
        of_all(report, report.in_sync, ["is", "are"])
    );
    Some(ReadyState::working(Reason::Progressing, message))
}

fn about_to_be_deleted(report: &SelectorReport) -> Option<ReadyState> {
    deleting(&report.differences)
}

/// Changes wait that neither are held nor fail.
fn dependent(report: &SelectorReport) -> Option<ReadyState> {
    let waiting = report.details.iter();
    let waiting = waiting.filter_map(device::dependent).take(NAMED);
    let waiting: Vec<String> = waiting.map(ReadyState::into_message).collect();
    if waiting.is_empty() {
        return None;
    }
    let not_ready = ["is not ready", "are not ready"];
    let how_many = report.matched - report.in_sync;
    let subject = of_all(report, how_many, not_ready);
    Some(ReadyState::retrying(
        Reason::DependencyNotReady,
        format!("{subject}: {}", waiting.join(" ")),
    ))
}

fn as_declared(report: &SelectorReport) -> ReadyState {
    let expired = expired(&report.expired);
    let message = match report.matched {
        1 => format!("The one matching device is in sync.{expired}"),
        all => format!("All {all} devices are in sync.{expired}"),
    };
    ReadyState::done(Reason::InSync, message)
}

/// If all devices fail, the success is not partial: the first failure is the reason.
fn failing(report: &SelectorReport) -> Option<ReadyState> {
    if report.failed == 0 {
        return None;
    }
    let failing = report.details.iter().filter_map(|device| {
        let reasons = device.failures.iter().map(|(_, failure)| failure.reason);
        let reasons: Vec<_> = reasons.map(Reason::as_str).collect();
        let message = format!("{}: {}", called(device), failures(device));
        (!reasons.is_empty()).then_some((reasons, message))
    });
    let subject = of_all(report, report.failed, ["failed"; 2]);
    let message = format!("{subject}: {}", each_cause(failing.collect()));
    let worst = report.details.iter().find_map(worst);
    Some(match worst.filter(|_| report.failed == report.matched) {
        Some(worst) => failed(worst).with_message(message),
        None => ReadyState::retrying(Reason::PartiallyApplied, message),
    })
}

fn holding(report: &SelectorReport) -> Option<ReadyState> {
    let mut held: Vec<(String, ReadyState)> = report.details.iter().flat_map(holds).collect();
    held.sort_by_key(|(_, state)| state.severity());
    let first = held.first().map(|(_, state)| state.clone())?;
    if first.reason() == Reason::Observed {
        return Some(first.with_message(format!(
            "{} out of sync; status.pending lists the differences. Nothing is sent, as the policy only \
             observes. Write enforcement: Enforce to apply the desired state.",
            of_all(report, report.held, ["is", "are"])
        )));
    }
    let held = held.into_iter();
    let held = held.map(|(reason, state)| (reason, state.into_message()));
    let subject = of_all(report, report.held, ["is held", "are held"]);
    let message = format!("{subject}: {}", each_cause(held.collect()));
    Some(first.with_message(message))
}

/// The messages of some devices: one of each cause, however many devices have the first of them.
fn each_cause<C: Ord + Clone>(messages: Vec<(C, String)>) -> String {
    let mut causes: BTreeSet<C> = BTreeSet::new();
    let (first, repeated): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|(cause, _)| causes.insert(cause.clone()));
    let named = NAMED.max(first.len().min(MAX_CAUSES));
    let messages = first.into_iter().chain(repeated).take(named);
    let messages: Vec<String> = messages.map(|(_, message)| message).collect();
    messages.join(" ")
}

/// `3 of 1000 devices are held: …`, with details of the first of them.
fn some(
    report: &SelectorReport,
    how_many: usize,
    one_many: [&str; 2],
    say: impl Fn(&DeviceReport) -> Option<String>,
) -> String {
    let message: Vec<_> = report.details.iter().filter_map(say).take(NAMED).collect();
    let subject = of_all(report, how_many, one_many);
    format!("{subject}: {}", message.join(" "))
}

/// `1 of 1000 devices is held`: the verb follows the first number, the noun the second.
fn of_all(report: &SelectorReport, how_many: usize, [one, many]: [&str; 2]) -> String {
    let verb = if how_many == 1 { one } else { many };
    format!("{how_many} of {} {verb}", counted(report.matched, "device"))
}

pub(super) fn in_sync(report: &SelectorReport) -> SyncState {
    let are_unknown = report.differences.len() == report.out_of_sync
        && report.differences.iter().all(Difference::is_unknown);
    if report.out_of_sync > 0 && are_unknown {
        return SyncState::NotYet;
    }
    if report.out_of_sync > 0 {
        let first: Vec<_> = report
            .differences
            .iter()
            .take(NAMED)
            .map(|difference| format!("{}: {:#}", difference.device, difference.change))
            .collect();
        let total = match report.out_of_sync {
            1 => "One difference".to_owned(),
            many => format!("{many} differences"),
        };
        return SyncState::No(format!("{total}: {}", first.join("; ")));
    }
    if report.conflicted > 0 {
        return SyncState::overridden();
    }
    if report.unread > 0 {
        return SyncState::NotYet;
    }
    SyncState::Yes
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &SelectorReport) {
    status.matched_devices = Some(count(report.matched));
    status.in_sync_devices = Some(count(report.in_sync));
    status.devices = report.details.iter().map(detail).collect();
    let differences = report.differences.iter().map(|difference| {
        let field = (difference.node.clone(), difference.change.field());
        PendingChange {
            disruptive: report.impacts.get(&field).cloned().map(device::words),
            ..pending(difference, report.waits.get(&field))
        }
    });
    let overridden = report.overridden.iter();
    let overridden = overridden.map(|(node, label, of)| pending_conflict(node, label, of));
    status.pending = differences.chain(overridden).take(DETAILS).collect();
    let total = report.out_of_sync + report.overridden_total;
    status.pending_total = (total > 0).then(|| count(total));
    status.held_changes = (report.held_changes > 0).then(|| count(report.held_changes));
}

fn detail(device: &DeviceReport) -> DeviceStatus {
    let as_declared = is_as_declared(device);
    let wrong = (!as_declared).then(|| device::ready_state(device));
    DeviceStatus {
        node_id: device.node.to_string(),
        name: device.label.clone(),
        in_sync: as_declared,
        reason: wrong.as_ref().map(|ready| ready.reason().to_string()),
        // One cause for each device: a status has a bounded size.
        message: wrong.map(|ready| ready.alone().into_message()),
    }
}
