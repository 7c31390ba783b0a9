//! A plan for output in any format.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{
        no_device::why_no_device,
        snapshot::Snapshot,
        table::{self, Style},
    },
    model::{NodeId, counted},
    plan::{
        ChangeCause, Difference, Forbidden, Hold, Impact, PolicyInput, PolicyKey, ReleasedSetting,
        TailnetPlan,
    },
};

/// The changes of a plan, notes on policies, and totals.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct View<'a> {
    /// Sorted by the name of the device.
    pub changes: Vec<ChangeView<'a>>,
    /// The settings that policies no longer declare and that stay as they are. No changes.
    pub released: Vec<ReleasedView<'a>>,
    /// About policies that target no device, are not allowed, or are overridden.
    pub notes: Vec<Note>,
    pub totals: Totals,
}

/// A change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct ChangeView<'a> {
    /// The first label of the device's name.
    pub device: &'a str,
    pub node_id: &'a NodeId,
    /// The setting, named as in a manifest.
    pub field: String,
    pub before: String,
    pub after: String,
    /// The reason for the change: see [`Difference::why`].
    pub why: String,
    /// Since when the device differs: `Declared`, `Drift`, `Joined`, or `Released`. Absent for files, which have
    /// no status that knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// The policies that declare it. The owner of the field comes first.
    pub policies: Vec<String>,
    /// The disruption that it can cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruptive: Option<String>,
    /// Why it is held, and how to let it through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    #[serde(skip)]
    pub difference: &'a Difference,
    #[serde(skip)]
    pub impact: Option<Impact>,
}

/// What becomes of a released setting that is not cleared.
const STAYS: &str = "released: stays as it is";

/// A setting that a policy has released.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct ReleasedView<'a> {
    /// The first label of the device's name.
    pub device: &'a str,
    pub node_id: &'a NodeId,
    /// The setting, named as in a manifest.
    pub field: String,
    /// Its value, if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<&'a str>,
    /// The policy that no longer declares it.
    pub policy: String,
    /// [`STAYS`].
    pub outcome: &'static str,
}

/// A remark on a policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Note {
    pub policy: String,
    pub message: String,
}

/// The numbers of the summary.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Totals {
    /// Without devices that are shared in.
    pub devices: usize,
    pub policies: usize,
    /// Changes that the controller would make.
    pub changes: usize,
    pub changed_devices: usize,
    /// Those of `changes` that can cut a device off.
    pub disruptive: usize,
    /// Held changes.
    pub held: usize,
    /// Those of `held` that can cut a device off.
    pub held_disruptive: usize,
    /// Policies that the tailnet does not allow.
    pub refused: usize,
    /// Changes of policies that only observe or are suspended.
    pub only_shown: usize,
    /// Settings that policies have released and that stay as they are.
    pub released: usize,
    /// Devices that could not be read completely.
    pub unread: usize,
}

impl<'a> View<'a> {
    /// Prepares a plan for output.
    pub fn of(
        policies: &[PolicyInput],
        tailnet_plan: &'a TailnetPlan,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Self {
        let plans = tailnet_plan.devices.values();
        let differences = plans.flat_map(|plan| plan.differences.iter().chain(&plan.shown));
        let mut changes: Vec<_> = differences
            .map(|difference| ChangeView::of(difference, snapshot, now))
            .collect();
        // By name, as people look for a device; two devices can have one.
        changes.sort_by_key(|change| (change.device, change.node_id));
        let mut totals = Totals {
            devices: snapshot.fleet.own_count(),
            policies: policies.len(),
            refused: tailnet_plan.refused.len(),
            unread: snapshot.failures.len(),
            released: tailnet_plan.released.len(),
            ..Totals::default()
        };
        // The changes are sorted by device, so that comparing neighbors counts the devices.
        let mut last = None;
        for change in &changes {
            match &change.difference.hold {
                None => {
                    totals.changes += 1;
                    totals.disruptive += usize::from(change.impact.is_some());
                    totals.changed_devices +=
                        usize::from(last.replace(change.node_id) != Some(change.node_id));
                }
                // Not among the held ones, as no approval lets them through.
                Some(Hold::Suspended(_) | Hold::Observed) => totals.only_shown += 1,
                Some(_) => {
                    totals.held += 1;
                    totals.held_disruptive += usize::from(change.impact.is_some());
                }
            }
        }
        Self {
            changes,
            released: released(&tailnet_plan.released),
            notes: notes(policies, tailnet_plan, snapshot),
            totals,
        }
    }

    /// The plan for a terminal.
    pub fn table(&self, style: Style) -> String {
        let mut text = String::new();
        if !self.changes.is_empty() {
            let rows = self
                .changes
                .iter()
                .map(|change| (change.difference, change.impact.clone()));
            text += &table::table(rows, style);
            text += "\n\n";
        }
        text.extend(self.released.iter().map(|released| format!("{released}\n")));
        // Empty parts leave no empty line behind.
        if !self.released.is_empty() {
            text.push('\n');
        }
        text.extend(
            self.notes
                .iter()
                .map(|note| format!("{}: {}\n", note.policy, note.message)),
        );
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text + &self.totals.to_string() + "\n"
    }
}

impl<'a> ChangeView<'a> {
    fn of(difference: &'a Difference, snapshot: &Snapshot, now: Timestamp) -> Self {
        let device = snapshot.fleet.get(&difference.node);
        let impact = device.and_then(|device| Impact::of(&difference.change, device, now));
        Self {
            device: &difference.device,
            node_id: &difference.node,
            field: difference.change.field().to_string(),
            before: difference.change.before(),
            after: difference.change.after(),
            why: difference.why.to_string(),
            cause: difference.cause.map(ChangeCause::as_str),
            policies: difference.owners().map(ToString::to_string).collect(),
            disruptive: impact.as_ref().map(ToString::to_string),
            held: difference.hold.as_ref().map(ToString::to_string),
            difference,
            impact,
        }
    }
}

/// Sorted by the name of the device.
fn released(settings: &[ReleasedSetting]) -> Vec<ReleasedView<'_>> {
    let views = settings.iter().map(|setting| ReleasedView {
        device: &setting.device,
        node_id: &setting.node,
        field: setting.field.to_string(),
        value: setting.value.as_deref(),
        policy: setting.policy.to_string(),
        outcome: STAYS,
    });
    // In the order of the changes, so that both can be compared.
    let mut views: Vec<_> = views.collect();
    views.sort_by_key(|view| (view.device, view.node_id));
    views
}

impl fmt::Display for ReleasedView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.field)?;
        if let Some(value) = self.value {
            write!(f, " ({value})")?;
        }
        write!(f, " {} (was declared by {})", self.outcome, self.policy)
    }
}

impl Totals {
    /// Whether there is anything left to do, for this program or for a person.
    pub fn asks_for_something(&self) -> bool {
        self.changes + self.held + self.refused > 0
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes > 0 {
            let changes = counted(self.changes, "change");
            let devices = counted(self.changed_devices, "device");
            write!(f, "{changes} on {devices} ({} disruptive)", self.disruptive)?;
        } else if self.held + self.refused + self.only_shown + self.unread > 0 {
            // Something is held, denied or unread, so "Nothing to change" would be wrong.
            f.write_str("No change now")?;
        } else {
            f.write_str("Nothing to change")?;
        }
        if self.held > 0 {
            write!(f, ", {} held", self.held)?;
        }
        if self.held_disruptive > 0 {
            write!(f, " ({} disruptive)", self.held_disruptive)?;
        }
        if self.refused > 0 {
            write!(f, ", {} not allowed", counted(self.refused, "policy"))?;
        }
        if self.only_shown > 0 {
            write!(f, ", {} only shown", self.only_shown)?;
        }
        if self.released > 0 {
            write!(f, ", {} released", self.released)?;
        }
        if self.unread > 0 {
            write!(f, ", {} not compared", counted(self.unread, "device"))?;
        }
        let policies = counted(self.policies, "policy");
        write!(
            f,
            "; {policies}, {} in the tailnet.",
            counted(self.devices, "device")
        )
    }
}

fn notes(policies: &[PolicyInput], tailnet_plan: &TailnetPlan, snapshot: &Snapshot) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |policy: &PolicyKey, message: String| {
        notes.push(Note {
            policy: policy.to_string(),
            message,
        });
    };
    for declared in policies {
        match &declared.policy {
            Err(errors) => add(&declared.key, format!("not valid: {}", errors.join("; "))),
            // Before its devices: a policy that is not allowed has none.
            Ok(_) if let Some(forbidden) = tailnet_plan.refused.get(&declared.key) => {
                add(&declared.key, not_allowed(forbidden));
            }
            Ok(policy) => {
                let binding = tailnet_plan.bindings.get(&declared.key);
                if let Some(why) = binding
                    .and_then(|binding| why_no_device(&policy.target, binding, &snapshot.fleet))
                {
                    add(&declared.key, why);
                }
            }
        }
    }
    // After the notes about whole policies, as these are about one device each.
    for (node, plan) in &tailnet_plan.devices {
        let device = match snapshot.fleet.get(node) {
            Some(device) => device.label().to_string(),
            None => node.to_string(),
        };
        for lost in &plan.owners.conflicts {
            let message = format!(
                "overridden by {}, which declares another {} for {device}. Edit one of the two",
                lost.owner, lost.field
            );
            add(&lost.overridden, message);
        }
    }
    notes
}

fn not_allowed(forbidden: &Forbidden) -> String {
    let hint = if forbidden.labels_unknown {
        ". A rule selects by the labels of the namespace, which are unknown. Add the Namespace to the \
         manifests"
    } else {
        ""
    };
    format!("not allowed: {forbidden}{hint}")
}
