//! The parts of a report: devices of a selector, clearing, one-shot actions, and held plans.

use std::collections::BTreeSet;

use super::limit::ChangeLimit;
use crate::{
    model::NodeId,
    plan::{
        ApprovedOn, Binding, Difference, Field, Hold, LimitedPlan, PlanHash, Policy, PolicyKey,
        Stage, Target, Why,
    },
    tailnet::{
        ClearReport, DETAILS,
        actions::{ActionDetail, ActionReport},
        change_budget::ChangeBudget,
        devices::Devices,
        observed::Observed,
        policy_entry::PolicyEntry,
        policy_set::PolicySet,
        release::blocker,
    },
};

/// The number of errors of an annotation that a status reports.
const MAX_NAMED: usize = 20;

/// The progress of clearing the released devices; `None` if there are none.
pub(super) fn clear_report(
    limit: &ChangeLimit<'_>,
    devices: &Devices,
    key: &PolicyKey,
) -> Option<ClearReport> {
    let (gate, observed, policies) = (limit.gate, limit.observed, limit.policies);
    let entry = policies.get(key)?;
    let mut nodes = entry.needed_record().managed.released_devices();
    if entry.is_deleting() {
        // A policy that is being deleted must clear the devices that it still manages, too.
        nodes.extend(&entry.needed_record().managed.nodes);
    }
    if nodes.is_empty() {
        return None;
    }
    let is_targeted = |id: &&NodeId| !entry.is_deleting() && entry.targets().contains(id);
    let fields = nodes.iter().filter(|id| is_targeted(id)).count();
    let mut report = ClearReport {
        left: nodes.len() - fields,
        fields,
        blocker: gate.outage(observed).map(|failure| failure.message.clone()),
        ..ClearReport::default()
    };
    for id in nodes {
        let Some(node) = devices.get(id) else {
            continue;
        };
        let own = || node.plan().of(key).filter(|d| d.why == Why::Released);
        // The report of a targeted device has all of its differences.
        if !is_targeted(&id) {
            let room = DETAILS - report.differences.len();
            let reported = own().map(|difference| node.plan().disclosed_as(difference, key));
            report.differences.extend(reported.take(room));
            report.different += own().count();
        }
        if report.blocker.is_none() {
            report.blocker = own().next().and_then(|first| blocker(node, key, first));
        }
    }
    name_frozen_plan(limit, key, &mut report.differences);
    Some(report)
}

/// The progress of a policy's one-shot actions.
pub(super) fn action_report(
    observed: &Observed,
    policies: &PolicySet,
    devices: &Devices,
    key: &PolicyKey,
) -> ActionReport {
    let mut report = ActionReport::default();
    let Some(entry) = policies.get(key).filter(|entry| entry.has_actions()) else {
        return report;
    };
    report.clock_skew = observed.clock_skew();
    let mut ranked: BTreeSet<(Stage, &NodeId, Field)> = BTreeSet::new();
    for (id, node) in entry.nodes().filter_map(|id| devices.get_key_value(id)) {
        for action in node
            .plan()
            .actions
            .iter()
            .filter(|action| action.policy == *key)
        {
            *report.totals.entry(action.stage).or_default() += 1;
            ranked.insert((action.stage, id, action.field.clone()));
            // Only what is reported is kept: a selector can match ten thousand devices.
            if ranked.len() > DETAILS {
                ranked.pop_last();
            }
        }
    }
    let details = ranked.into_iter().filter_map(|(stage, id, field)| {
        let (node, device) = (devices.get(id)?, observed.index().get(id)?);
        let own = node
            .plan()
            .of(key)
            .find(|difference| difference.change.field() == field);
        Some(ActionDetail {
            stage,
            node: id.clone(),
            label: device.label().to_string(),
            held: own.and_then(|own| own.hold.as_ref().map(ToString::to_string)),
            field,
        })
    });
    report.details = details.collect();
    add_deleted(observed, entry, &mut report);
    report
}

/// Adds the deletions whose device is gone: those of this process, and those that were recorded before a crash.
fn add_deleted(observed: &Observed, entry: &PolicyEntry, report: &mut ActionReport) {
    // Before the first list a device is unknown, and not gone.
    let listed = observed.lists() > 0;
    let gone: Vec<_> = entry
        .needed_record()
        .actions
        .deletions
        .iter()
        .filter(|(id, record)| (record.done || listed) && observed.index().get(id).is_none())
        .collect();
    if !gone.is_empty() {
        *report.totals.entry(Stage::Done).or_default() += gone.len();
    }
    let room = DETAILS.saturating_sub(report.details.len());
    let gone = gone.into_iter().take(room);
    report.details.extend(gone.map(|(id, record)| ActionDetail {
        stage: Stage::Done,
        node: id.clone(),
        label: record.name.clone(),
        field: Field::DeleteInactive,
        held: None,
    }));
}

/// Adds the hash of the frozen plan to each difference in it, so that the status names the approval, and the
/// numbers of the limit to each difference that it holds.
pub(super) fn name_frozen_plan(
    limit: &ChangeLimit<'_>,
    key: &PolicyKey,
    differences: &mut [Difference],
) {
    let entry = limit.policies.get(key);
    let plan = entry.and_then(|entry| entry.approval().frozen_plan());
    let by_limit = |it: &Difference| matches!(it.hold, Some(Hold::Limit(_)));
    // Only if it is needed: the share of a namespace is found among all policies.
    let limited = differences.iter().any(by_limit);
    let limited = limited.then(|| limit.limited_plan(key)).flatten();
    for difference in differences {
        let frozen = plan.filter(|plan| plan.holds(difference));
        match &mut difference.hold {
            Some(Hold::Approval(hash)) => *hash = frozen.map(|plan| plan.hash.clone()),
            Some(Hold::Limit(held)) => {
                *held = limited.clone().map(|limited| {
                    // A later difference is no part of the frozen plan.
                    let hash = limited.hash.filter(|_| frozen.is_some());
                    Box::new(LimitedPlan { hash, ..limited })
                });
            }
            _ => {}
        }
    }
}

/// Errors of the approval annotation of a policy. `at_rest`: all held changes are frozen.
pub(super) fn approval_errors(policies: &PolicySet, key: &PolicyKey, at_rest: bool) -> Vec<String> {
    let Some(entry) = policies.get(key) else {
        return Vec::new();
    };
    let approvals = entry.approval().given();
    let mut errors = approvals.errors.clone();
    let plan = entry.approval().frozen_plan();
    let mismatched = approvals.plans.iter().filter_map(|hash| {
        let used = entry.has_used(hash);
        match plan {
            Some(plan) if plan.hash == *hash => (plan.on == ApprovedOn::Tailnet).then(|| {
                format!("plan:{hash}: approve it on the TailscaleTailnet, not on the policy")
            }),
            Some(plan) if used => Some(format!(
                "plan:{hash} was used before and approves nothing again; plan:{} is held now",
                plan.hash
            )),
            Some(plan) => Some(format!(
                "plan:{hash} matches no held plan; plan:{} is held now",
                plan.hash
            )),
            // A used approval is no error as long as no other plan waits.
            None if used || !at_rest => None,
            None => Some(format!("plan:{hash} matches no held plan")),
        }
    });
    errors.extend(mismatched);
    errors.extend(node_approval_errors(entry));
    errors.truncate(MAX_NAMED);
    errors
}

/// Errors of the approval annotation of the tailnet.
pub(super) fn tailnet_approval_errors(
    observed: &Observed,
    policies: &PolicySet,
    change_budget: &ChangeBudget,
) -> Vec<String> {
    let approvals = change_budget.approvals();
    let mut errors = approvals.errors.clone();
    let nodes = approvals.nodes.iter();
    errors.extend(
        nodes.map(|id| format!("node:{id}: approve it on a policy, not on the TailscaleTailnet")),
    );
    // Before the first list no plan is frozen, so every hash would look wrong.
    if !approvals.plans.is_empty() && observed.lists() > 0 {
        let mut limited = change_budget
            .held()
            .iter()
            .filter_map(|key| policies.get(key));
        // A plan that is not frozen yet may match.
        if limited.all(|entry| entry.approval().frozen_plan().is_some()) {
            let mismatched = approvals
                .plans
                .iter()
                .filter(|hash| !is_known_plan(policies, hash));
            errors.extend(mismatched.map(|hash| format!("plan:{hash} matches no held plan")));
        }
    }
    errors.truncate(MAX_NAMED);
    errors
}

fn is_known_plan(policies: &PolicySet, hash: &PlanHash) -> bool {
    policies.values().any(|entry| {
        let plan = entry.approval().frozen_plan();
        plan.is_some_and(|plan| plan.on == ApprovedOn::Tailnet && plan.hash == *hash)
            || entry.has_used(hash)
    })
}

/// Errors of approved devices: those that do not settle which device the policy targets.
fn node_approval_errors(entry: &PolicyEntry) -> Vec<String> {
    let Ok(Policy {
        target: Target::Device(target),
        ..
    }) = entry.policy().as_deref()
    else {
        let nodes = entry.approval().given().nodes.iter();
        return nodes
            .map(|id| format!("node:{id} approves nothing: the policy selects its devices"))
            .collect();
    };
    let named = &target.identity;
    let holders: Vec<&NodeId> = match entry.targets().binding() {
        Some(Binding::Ambiguous(nodes)) => nodes.iter().collect(),
        Some(Binding::IdentityChanged { found, .. }) => vec![found],
        _ => return Vec::new(),
    };
    let (matching, mismatched): (Vec<_>, Vec<_>) = entry
        .approval()
        .given()
        .nodes
        .iter()
        .partition(|id| holders.contains(id));
    let mut errors: Vec<String> = mismatched
        .iter()
        .map(|id| format!("node:{id} does not have the {named}"))
        .collect();
    if matching.len() > 1 {
        let message = "several devices that have the";
        errors.push(format!("{message} {named} are approved: keep one of them"));
    }
    errors
}
