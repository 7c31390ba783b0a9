//! Pending approvals in the status of a policy.

use super::{
    ready_state::ReadyState,
    text::{bounded, count, counted},
};
use crate::{
    api::{APPROVE, HeldChanges, HeldPlan, Reason, TailscaleDevicePolicyStatus},
    plan::{ApprovedOn, ChangeKind},
    tailnet::{self, PolicyReport, SelectorReport, State},
};

/// Explains how to approve a held plan, and lists the errors in the annotation.
pub(super) fn explain(ready: ReadyState, report: &PolicyReport, tailnet: &str) -> ReadyState {
    let what = match (ready.reason(), &report.held) {
        (Reason::AwaitingApproval, Some(plan)) => format!(
            "{}, listed under status.heldPlan. Nothing of the plan is sent before it is approved. Annotate \
             the policy with {APPROVE}: plan:{}.",
            waiting(plan),
            plan.hash
        ),
        (Reason::LimitHeld, Some(plan)) => format!(
            "{}: the plan would change more devices within an hour than maxChangedDevices of the \
             TailscaleTailnet {tailnet} allows {}, and policies with the most devices are held first. \
             If the selector matches too many devices, correct it. Otherwise annotate the \
             TailscaleTailnet with {APPROVE}: plan:{}, or raise its maxChangedDevices. The controller \
             sends changes that are within the limit again once an hour has passed.",
            waiting(plan),
            allowed(plan),
            plan.hash
        ),
        // The annotation also decides these, so its errors are shown with them.
        (
            Reason::AwaitingApproval
            | Reason::LimitHeld
            | Reason::IdentityChanged
            | Reason::Superseded
            | Reason::Ambiguous,
            _,
        ) => ready.message().to_owned(),
        _ => return ready,
    };
    let errors = report.approval_errors.iter();
    errors.fold(ready.with_message(what), |ready, error| {
        ready.and(&format!(" In the annotation, {error}."))
    })
}

/// How many devices the limit allows, or the share of one namespace.
fn allowed(plan: &tailnet::HeldPlan) -> String {
    match (plan.share, plan.limit) {
        (Some(share), Some(most)) => format!(
            "one namespace ({share} of {most}: a quarter of the limit is reserved for other namespaces)"
        ),
        (_, Some(most)) => format!("({most})"),
        (_, None) => "(no limit at present)".to_owned(),
    }
}

/// `12 changes of 3 devices are pending approval`.
fn waiting(plan: &tailnet::HeldPlan) -> String {
    let (changes, devices) = (
        counted(plan.changes, "change"),
        counted(plan.devices, "device"),
    );
    let verb = if plan.changes == 1 { "is" } else { "are" };
    let past = match plan.changes.saturating_sub(plan.open) {
        0 => String::new(),
        1 => " (1 of them no longer applies and is not sent)".to_owned(),
        many => format!(" ({many} of them no longer apply and are not sent)"),
    };
    format!("{changes} of {devices} {verb} pending approval{past}")
}

/// Bytes: twenty kinds must leave room in a status of 16 KiB.
const MAX_KIND: usize = 160;

/// Bytes of the names of devices in all kinds.
const MAX_NAMES: usize = 6 * 1024;

/// How many changes and devices of a held plan a status describes in full. The summary has all of them, and more
/// would hide everything else that `kubectl describe` shows.
const EXAMPLES: usize = 3;

fn summary(plan: &tailnet::HeldPlan) -> Vec<HeldChanges> {
    let mut room = MAX_NAMES;
    let kinds = plan.summary.kinds.iter();
    kinds.map(|kind| held_changes(kind, &mut room)).collect()
}

fn held_changes(kind: &ChangeKind, room: &mut usize) -> HeldChanges {
    let first: Vec<&str> = kind
        .names
        .iter()
        .map_while(|name| {
            *room = room.checked_sub(name.len() + 2)?;
            Some(name.as_str())
        })
        .collect();
    let names = match kind.devices - first.len() {
        0 => first.join(", "),
        more if first.is_empty() => counted(more, "device"),
        more => format!("{} and {more} more", first.join(", ")),
    };
    HeldChanges {
        change: bounded(kind.change.clone(), MAX_KIND),
        devices: count(kind.devices),
        names,
        disruptive: kind.is_disruptive,
    }
}

/// Leaves a few examples of what the held plan says anyway.
fn leave_examples(status: &mut TailscaleDevicePolicyStatus, fleet: &SelectorReport) {
    let mut differences = fleet.differences.iter();
    let mut changes = 0;
    status.pending.retain(|_| {
        let hold = differences.next().and_then(|it| it.hold.as_ref());
        let is_planned = hold.and_then(ApprovedOn::releases).is_some();
        changes += usize::from(is_planned);
        !is_planned || changes <= EXAMPLES
    });
    let waits = [Reason::AwaitingApproval, Reason::LimitHeld].map(Reason::as_str);
    let mut devices = 0;
    status.devices.retain(|device| {
        let only_waits = device
            .reason
            .as_deref()
            .is_some_and(|reason| waits.contains(&reason));
        devices += usize::from(only_waits);
        !only_waits || devices <= EXAMPLES
    });
}

/// Absent instead of 0.
fn some(number: usize) -> Option<u32> {
    (number > 0).then(|| count(number))
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    status.held_plan = report.held.as_ref().map(|plan| HeldPlan {
        hash: plan.hash.to_string(),
        approve_on: match plan.on {
            ApprovedOn::Policy => "TailscaleDevicePolicy".to_owned(),
            ApprovedOn::Tailnet => "TailscaleTailnet".to_owned(),
        },
        changes: count(plan.changes),
        devices: count(plan.devices),
        disruptive_changes: some(plan.summary.disruptive),
        summary: summary(plan),
        other_kinds: some(plan.summary.other_kinds),
        other_changes: some(plan.summary.other_changes),
    });
    if let (Some(_), State::Selector(fleet)) = (&report.held, &report.state) {
        leave_examples(status, fleet);
    }
    // A plan can also have changes of devices that the policy no longer targets.
    let open = report.held.as_ref().and_then(|plan| some(plan.open));
    status.held_changes = status.held_changes.max(open);
    status.approval_errors.clone_from(&report.approval_errors);
}
