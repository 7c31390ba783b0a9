//! The approval that a policy needs, according to its status.

use comfy_table::ColumnConstraint;
use kube::ResourceExt as _;

use crate::{
    api::{
        APPROVE, HeldChanges, HeldPlan, PendingChange, TailscaleDevicePolicy, conditions::READY,
    },
    cli::{
        lines::wrapped,
        output::printable,
        table::{Style, lines},
    },
    model::{Reason, Refused, counted},
    plan::{Approvals, PlanHash},
};

/// The approval that a policy needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Waiting<'a> {
    /// A frozen plan.
    Plan {
        hash: PlanHash,
        /// Whether the limit of the tailnet holds it.
        by_limit: bool,
        plan: &'a HeldPlan,
        changes: Vec<&'a PendingChange>,
    },
    /// Someone must choose the device. The message of `Ready` names the candidates.
    Device(&'a str),
    /// None. The message of `Ready` says why.
    Nothing(&'a str),
}

/// Why it is unknown what a policy waits for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnknownState {
    /// The status is that of an earlier spec.
    #[error(
        "the controller has not reconciled its current spec yet. Try again in a moment, or check that the \
         controller runs"
    )]
    NotReconciled,
    /// Something else than the controller wrote the status.
    #[error("its status is invalid: {0}")]
    InvalidStatus(Refused),
    /// It is no longer what someone has read.
    #[error("the held plan has changed meanwhile. Run the command again")]
    Changed,
}

impl<'a> Waiting<'a> {
    /// Reads a status. Fails if the status does not belong to the current spec.
    pub fn of(policy: &'a TailscaleDevicePolicy) -> Result<Self, UnknownState> {
        let status = policy.status.as_ref();
        let Some(status) =
            status.filter(|status| status.observed_generation == policy.metadata.generation)
        else {
            return Err(UnknownState::NotReconciled);
        };
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == READY);
        let (reason, message) = ready.map_or(("", ""), |ready| {
            (ready.reason.as_str(), ready.message.as_str())
        });
        if let Some(plan) = &status.held_plan {
            return Ok(Self::Plan {
                by_limit: plan.approve_on == "TailscaleTailnet",
                changes: status
                    .pending
                    .iter()
                    .filter(|change| change.held.is_some())
                    .collect(),
                // Parsed, as it is written into an annotation.
                hash: plan.hash.parse().map_err(UnknownState::InvalidStatus)?,
                plan,
            });
        }
        let about_devices = [
            Reason::IdentityChanged,
            Reason::Superseded,
            Reason::Ambiguous,
        ]
        .map(Reason::as_str);
        Ok(if about_devices.contains(&reason) {
            Self::Device(message)
        } else {
            Self::Nothing(message)
        })
    }
}

/// The changes of a held plan that the status lists, and the size of the plan.
pub(super) fn table(plan: &HeldPlan, changes: &[&PendingChange], style: Style) -> String {
    let mut table = style.table(["DEVICE", "SETTING", "NOW", "DECLARED", "DISRUPTIVE"]);
    for change in changes {
        let name = match change.name.split('.').next().unwrap_or_default() {
            "" => change.device.as_str(),
            label => label,
        };
        table.add_row([
            // Devices choose their names, which must not control the terminal of an approver.
            printable(name),
            printable(&change.field),
            printable(&change.before),
            printable(&change.after),
            printable(change.disruptive.as_deref().unwrap_or_default()),
        ]);
    }
    // An empty column says nothing.
    if changes.iter().all(|change| change.disruptive.is_none())
        && let Some(column) = table.column_mut(4)
    {
        column.set_constraint(ColumnConstraint::Hidden);
    }
    let shown = match usize::try_from(plan.changes) {
        Ok(all) if all > changes.len() => format!(", the first {} in full", changes.len()),
        _ => String::new(),
    };
    format!(
        "{}\n\n{}{}{shown}",
        lines(&table),
        kinds(plan, style),
        size(plan)
    )
}

/// The changes by kind, for a plan of more than two changes.
fn kinds(plan: &HeldPlan, style: Style) -> String {
    // The table says the same in as many lines.
    if plan.changes <= 2 {
        return String::new();
    }
    let kinds = plan.summary.iter();
    let mut rows: Vec<String> = kinds.map(|it| kind(it, style)).collect();
    if let (Some(kinds), Some(changes)) = (plan.other_kinds, plan.other_changes) {
        let (kinds, changes) = (counted(kinds, "other kind"), counted(changes, "change"));
        rows.push(format!("{kinds}: {changes}\n"));
    }
    if !rows.is_empty() {
        rows.push("\n".to_owned());
    }
    rows.concat()
}

/// `75 devices: tags: -tag:syd (disruptive)`, and their names below.
fn kind(kind: &HeldChanges, style: Style) -> String {
    let devices = counted(kind.devices, "device");
    let disruptive = if kind.disruptive { " (disruptive)" } else { "" };
    let change = format!("{devices}: {}{disruptive}\n", printable(&kind.change));
    let width = style.width.map_or(usize::MAX, usize::from);
    let names = wrapped(kind.names.split_whitespace(), 0, width.saturating_sub(2));
    let names = names.into_iter().map(|line| format!("  {line}\n"));
    change + &names.collect::<String>()
}

/// `2 changes on 1 device`
pub(super) fn size(plan: &HeldPlan) -> String {
    let (changes, devices) = (
        counted(plan.changes, "change"),
        counted(plan.devices, "device"),
    );
    let disruptive = plan
        .disruptive_changes
        .map(|changes| format!(", {changes} disruptive"));
    format!("{changes} on {devices}{}", disruptive.unwrap_or_default())
}

/// The value of the annotation with one more approval. Approvals of devices stay, because they hold for
/// as long as the annotation names them. Of the approvals of plans only those that are `still_held` stay:
/// the others are used up.
pub(super) fn annotation(
    object: &impl kube::ResourceExt,
    entry: &str,
    still_held: impl Fn(&PlanHash) -> bool,
) -> String {
    let before = object.annotations().get(APPROVE).map(String::as_str);
    let Approvals { plans, nodes, .. } = Approvals::parse(before);
    let held = plans.iter().filter(|hash| still_held(hash));
    let mut entries: Vec<String> = nodes
        .iter()
        .map(|node| format!("node:{node}"))
        .chain(held.map(|hash| format!("plan:{hash}")))
        .collect();
    // Approving twice is harmless.
    if !entries.iter().any(|other| other == entry) {
        entries.push(entry.to_owned());
    }
    entries.join(",")
}

/// `network/databases`
pub(super) fn key(policy: &TailscaleDevicePolicy) -> String {
    format!(
        "{}/{}",
        policy.namespace().unwrap_or_default(),
        policy.name_any()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::TailscaleDevicePolicySpec;

    fn annotated(value: &str) -> TailscaleDevicePolicy {
        let mut policy = TailscaleDevicePolicy::new("policy", TailscaleDevicePolicySpec::default());
        policy.metadata.annotations =
            Some(BTreeMap::from([(APPROVE.to_owned(), value.to_owned())]));
        policy
    }

    #[test]
    fn an_approval_is_added_to_those_of_devices_and_of_held_plans() {
        let (used, held, new) = ("0000000000000001", "0000000000000002", "0000000000000003");
        let before = annotated(&format!("plan:{used}, node:nA1CNTRL,plan:{held},what"));
        let entry = format!("plan:{new}");
        let still_held = |hash: &PlanHash| hash.to_string() == held;
        let after = format!("node:nA1CNTRL,plan:{held},plan:{new}");
        assert_eq!(annotation(&before, &entry, still_held), after);
        assert_eq!(annotation(&annotated(&after), &entry, |_| true), after);
    }
}
