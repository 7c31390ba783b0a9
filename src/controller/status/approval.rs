//! What waits for an approval, as the status of a policy and of a tailnet tells it.

use super::{Verdict, count, whole_second};
use crate::{
    api::{
        APPROVE, HeldPlan, HeldPolicy, Reason, RecentChanges, TailscaleDevicePolicyStatus,
        TailscaleTailnetStatus,
    },
    plan::ApprovedOn,
    tailnet::{self, PolicyReport, TailnetReport},
};

/// Says how to approve what is held, and what is wrong with what somebody wrote to approve it.
pub(super) fn explain(verdict: Verdict, report: &PolicyReport, tailnet: &str) -> Verdict {
    let what = match (verdict.reason, &report.held) {
        (Reason::AwaitingApproval, Some(plan)) => format!(
            "{} for an approval, listed under status.pending. Nothing of it is sent until somebody \
             annotates the policy with {APPROVE}: plan:{}.",
            wait(plan),
            plan.hash
        ),
        (Reason::LimitHeld, Some(plan)) => format!(
            "{}: {} the TailscaleTailnet {tailnet} lets be changed within an hour, and of the policies \
             that would go over it those with the most devices are held. Correct the selector if it \
             means too many. Else annotate the TailscaleTailnet with {APPROVE}: plan:{}, or raise its \
             maxChangedDevices.",
            wait(plan),
            most(plan),
            plan.hash
        ),
        (Reason::AwaitingApproval | Reason::LimitHeld, None) => verdict.message,
        _ => return verdict,
    };
    let message = report.approval_faults.iter().fold(what, |text, fault| {
        format!("{text} In the annotation, {fault}.")
    });
    Verdict { message, ..verdict }
}

fn wait(plan: &tailnet::HeldPlan) -> String {
    let changes = match plan.changes {
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    };
    let (devices, wait) = match (plan.devices, plan.changes) {
        (1, 1) => ("1 device".to_owned(), "waits"),
        (1, _) => ("1 device".to_owned(), "wait"),
        (many, _) => (format!("{many} devices"), "wait"),
    };
    format!("{changes} of {devices} {wait}")
}

fn most(plan: &tailnet::HeldPlan) -> String {
    match plan.limit {
        Some(1) => "1 device is what".to_owned(),
        Some(most) => format!("{most} devices are what"),
        // The limit was lifted a moment ago.
        None => "all devices are what".to_owned(),
    }
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
    let used = report.memory.approvals_used;
    status.approvals_used = (used > 0).then_some(used);
    status.last_approved_plan = report.memory.approved.as_ref().map(ToString::to_string);
    status.approval_faults.clone_from(&report.approval_faults);
}

/// What was kept of recent changes stays until this process knows better.
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
            })
            .collect(),
    };
    status.approval_faults.clone_from(&report.approval_faults);
}

/// What a status of a tailnet has kept of recent changes.
pub(in crate::controller) fn recent(
    status: &TailscaleTailnetStatus,
) -> Vec<tailnet::RecentChanges> {
    let kept = status.recent_changes.iter();
    kept.map(|recent| tailnet::RecentChanges {
        since: recent.since.0,
        devices: usize::try_from(recent.devices).unwrap_or(usize::MAX),
    })
    .collect()
}
