//! Pending approvals in the status of a policy and of a tailnet.
use super::{ReadyState, count, counted, whole_second};
use crate::{
    api::{
        APPROVE, HeldPlan, HeldPolicy, Reason, RecentChanges, RecentDeletions,
        TailscaleDevicePolicyStatus, TailscaleTailnetStatus,
    },
    plan::{ApprovedOn, Binding, PolicyKey},
    tailnet::{self, PolicyReport, TailnetReport},
};

/// Explains how to approve a held plan, and lists the errors in the annotation.
pub(super) fn explain(ready: ReadyState, report: &PolicyReport, tailnet: &str) -> ReadyState {
    let what = match (ready.reason, &report.held) {
        (Reason::AwaitingApproval, Some(plan)) => format!(
            "{}, listed under status.pending. Nothing of the plan is sent before it is approved. Annotate \
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
        (
            Reason::AwaitingApproval
            | Reason::LimitHeld
            | Reason::IdentityChanged
            | Reason::Ambiguous,
            _,
        ) => ready.message,
        _ => return ready,
    };
    let message = report.approval_errors.iter().fold(what, |text, error| {
        format!("{text} In the annotation, {error}.")
    });
    ReadyState { message, ..ready }
}

/// The annotation of a policy can name the right device.
pub(super) fn of_binding(ready: ReadyState, binding: &Binding) -> ReadyState {
    let found = match binding {
        Binding::Ambiguous(nodes) => nodes.first(),
        Binding::IdentityChanged { found, .. } => Some(found),
        _ => None,
    };
    let Some(found) = found else {
        return ready;
    };
    let message = format!(
        "{} Or annotate the policy with {APPROVE}: node:{found} to bind it to {found}.",
        ready.message
    );
    ReadyState { message, ..ready }
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
    let past = plan.changes.saturating_sub(plan.open);
    let past = match past {
        0 => String::new(),
        1 => " (1 of them no longer applies and is not sent)".to_owned(),
        many => format!(" ({many} of them no longer apply and are not sent)"),
    };
    format!("{changes} of {devices} {verb} pending approval{past}")
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
    });
    let used = report.record.approvals_used;
    status.approvals_used = (used > 0).then_some(used);
    status.last_approved_plan = report.record.approved.as_ref().map(ToString::to_string);
    status.approval_errors.clone_from(&report.approval_errors);
}

/// The record of recent changes stays until this process has loaded it.
pub(super) fn describe_tailnet(
    status: &mut TailscaleTailnetStatus,
    report: &TailnetReport,
    old: &TailscaleTailnetStatus,
) {
    let limited = report.limited.iter().map(|limited| HeldPolicy {
        policy: limited.policy.to_string(),
        devices: count(limited.devices),
        hash: limited.hash.as_ref().map(ToString::to_string),
    });
    status.held = limited.collect();
    status.held_total = (report.limited_total > 0).then(|| count(report.limited_total));
    status.recent_changes = match &report.recent {
        None => old.recent_changes.clone(),
        Some(recent) => recent
            .iter()
            .map(|recent| RecentChanges {
                since: whole_second(recent.since),
                devices: count(recent.devices),
                namespace: recent.namespace.clone(),
            })
            .collect(),
    };
    let reserved = report.reserved.iter();
    let reserved = reserved.map(|(id, namespace)| match namespace {
        Some(namespace) => format!("{namespace}/{id}"),
        None => id.to_string(),
    });
    status.reserved_devices = reserved.collect();
    let deletions = report.deletions.iter();
    status.recent_deletions = deletions
        .map(|recent| RecentDeletions {
            policy: recent.policy.as_ref().map(ToString::to_string),
            uid: recent.uid.clone(),
            since: whole_second(recent.since),
            devices: count(recent.devices),
        })
        .collect();
    if report.recent.is_none() {
        let kept = old.reserved_devices.iter();
        let kept = kept.filter(|id| !status.reserved_devices.contains(id));
        let kept: Vec<String> = kept.cloned().collect();
        status.reserved_devices.extend(kept);
        let kept = old.recent_deletions.iter().cloned();
        status.recent_deletions.extend(kept);
    }
    status.approval_errors.clone_from(&report.approval_errors);
}

/// The reserved devices of a tailnet's status. An older version wrote no namespaces.
pub(in crate::controller) fn reserved(status: &TailscaleTailnetStatus) -> tailnet::ReservedDevices {
    let reserved = status.reserved_devices.iter();
    let reserved = reserved.filter_map(|entry| match entry.split_once('/') {
        Some((namespace, id)) => Some((id.parse().ok()?, Some(namespace.to_owned()))),
        None => Some((entry.parse().ok()?, None)),
    });
    reserved.collect()
}

/// The deletions that a tailnet's status records.
pub(in crate::controller) fn deletions(
    status: &TailscaleTailnetStatus,
) -> Vec<tailnet::RecentDeletions> {
    let policy = |text: &String| {
        let (namespace, name) = text.split_once('/')?;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Some(PolicyKey { namespace, name })
    };
    let recorded = status.recent_deletions.iter();
    recorded
        .map(|recent| tailnet::RecentDeletions {
            policy: recent.policy.as_ref().and_then(policy),
            uid: recent.uid.clone(),
            since: recent.since.0,
            devices: usize::try_from(recent.devices).unwrap_or(usize::MAX),
        })
        .collect()
}

/// The recent changes that a tailnet's status records.
pub(in crate::controller) fn recent(
    status: &TailscaleTailnetStatus,
) -> Vec<tailnet::RecentChanges> {
    let kept = status.recent_changes.iter();
    kept.map(|recent| tailnet::RecentChanges {
        since: recent.since.0,
        devices: usize::try_from(recent.devices).unwrap_or(usize::MAX),
        namespace: recent.namespace.clone(),
    })
    .collect()
}
