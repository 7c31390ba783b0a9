//! A plan for output in any format.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{no_device::why_no_device, snapshot::Snapshot},
    model::{NodeId, counted},
    plan::{
        Change, ChangeCause, Difference, Field, Forbidden, Hold, Impact, PolicyInput, PolicyKey,
        ReleasedSetting, TailnetPlan,
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
    pub before: Value,
    pub after: Value,
    /// The reason for the change: see [`Difference::why`].
    pub why: String,
    /// Why the device differs: `Declared`, `Drift`, `Joined`, or `Released`. Absent for files, which have no status
    /// that tells.
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
    pub place: Field,
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
    #[serde(skip)]
    pub place: Field,
}

/// A remark on a policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Note {
    pub policy: String,
    pub message: String,
    /// What the message is about, if it is about a field of one device.
    #[serde(skip)]
    pub overridden: Option<Overridden>,
}

/// A field that another policy owns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Overridden {
    owner: String,
    field: String,
}

impl Overridden {
    /// The message about these devices.
    pub fn on(&self, devices: &str) -> String {
        format!(
            "overridden by {}, which declares another {} for {devices}. Edit one of the two",
            self.owner, self.field
        )
    }
}

/// An observed or desired value.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::cli) enum Value {
    One(String),
    /// The entries of a list. Absent: unknown to the reader of the plan.
    List(Option<Vec<String>>),
}

/// The observed and the desired value of a change.
fn values(change: &Change) -> (Value, Value) {
    let list = |entries| Value::List(Some(entries));
    match change {
        Change::List(change) => (
            list(change.before().entries()),
            list(change.after().entries()),
        ),
        Change::NotCompared {
            field: Field::List(_),
            after,
        } => {
            let entries = after.split(',').filter(|entry| *entry != "none");
            (
                Value::List(None),
                list(entries.map(str::to_owned).collect()),
            )
        }
        _ => (Value::One(change.before()), Value::One(change.after())),
    }
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
            .map(|difference| {
                let device = snapshot.fleet.get(&difference.node);
                let impact = device.and_then(|it| Impact::of(&difference.change, it, now));
                ChangeView::of(difference, impact)
            })
            .collect();
        // By name, as people look for a device; two devices can have one.
        changes.sort_by_key(|change| (change.device, change.node_id));
        let totals = Totals {
            devices: snapshot.fleet.own_count(),
            policies: policies.len(),
            refused: tailnet_plan.refused.len(),
            unread: snapshot.failures.len(),
            released: tailnet_plan.released.len(),
            ..Totals::of(&changes)
        };
        Self {
            changes,
            released: released(&tailnet_plan.released),
            notes: notes(policies, tailnet_plan, snapshot),
            totals,
        }
    }
}

impl<'a> ChangeView<'a> {
    pub(super) fn of(difference: &'a Difference, impact: Option<Impact>) -> Self {
        let (before, after) = values(&difference.change);
        let place = difference.change.field();
        Self {
            device: &difference.device,
            node_id: &difference.node,
            field: place.to_string(),
            before,
            after,
            why: difference.why.to_string(),
            cause: difference.cause.map(ChangeCause::as_str),
            policies: difference.owners().map(ToString::to_string).collect(),
            disruptive: impact.as_ref().map(ToString::to_string),
            held: difference.hold.as_ref().map(ToString::to_string),
            place,
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
        place: setting.field.clone(),
    });
    // In the order of the changes, so that both can be compared.
    let mut views: Vec<_> = views.collect();
    views.sort_by_key(|view| (view.device, view.node_id));
    views
}

impl Totals {
    /// Counts changes, which are sorted by device.
    pub(super) fn of(changes: &[ChangeView<'_>]) -> Self {
        let mut totals = Self::default();
        // Comparing neighbors counts the devices.
        let mut last = None;
        for change in changes {
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
        totals
    }

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
    let mut add = |policy: &PolicyKey, message: String, overridden: Option<Overridden>| {
        notes.push(Note {
            policy: policy.to_string(),
            message,
            overridden,
        });
    };
    for declared in policies {
        match &declared.policy {
            Err(errors) => add(
                &declared.key,
                format!("not valid: {}", errors.join("; ")),
                None,
            ),
            // Before its devices: a policy that is not allowed has none.
            Ok(_) if let Some(forbidden) = tailnet_plan.refused.get(&declared.key) => {
                add(&declared.key, not_allowed(forbidden), None);
            }
            Ok(policy) => {
                let binding = tailnet_plan.bindings.get(&declared.key);
                if let Some(why) = binding
                    .and_then(|binding| why_no_device(&policy.target, binding, &snapshot.fleet))
                {
                    add(&declared.key, why, None);
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
            let overridden = Overridden {
                owner: lost.owner.to_string(),
                field: lost.field.to_string(),
            };
            add(&lost.overridden, overridden.on(&device), Some(overridden));
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
