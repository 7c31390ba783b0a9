//! A held plan in short: its changes by kind, so that a person can judge a plan of any size.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;

use crate::{
    model::{Device, NodeId},
    plan::{Change, Impact, ListChange},
};

/// The most kinds that a summary names.
const MAX_KINDS: usize = 20;

/// The most devices that a kind names.
const MAX_NAMES: usize = 100;

/// Changes that differ only by their device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChangeKind {
    /// `tags: -tag:syd`
    pub change: String,
    /// How many devices it changes.
    pub devices: usize,
    /// The names of the first of them, at most 100.
    pub names: Vec<String>,
    /// It can cut devices off, or takes something from them.
    pub is_disruptive: bool,
}

/// The kinds of changes of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Summary {
    /// The first kinds: disruptive ones, then those of the most devices.
    pub kinds: Vec<ChangeKind>,
    /// How many kinds it leaves out.
    pub other_kinds: usize,
    /// How many changes these have.
    pub other_changes: usize,
    /// How many of all changes are disruptive.
    pub disruptive: usize,
}

/// Counts changes by kind.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(String, bool), Counted>);

#[derive(Debug, Default)]
struct Counted {
    devices: usize,
    names: Vec<String>,
}

impl Tally {
    /// Adds a change of a device, which may be missing from the last list. `shown`: the change as its reader may
    /// see it.
    pub fn add(
        &mut self,
        change: &Change,
        shown: &Change,
        (id, device): (&NodeId, Option<&Device>),
        now: Timestamp,
    ) {
        let impact = device.and_then(|device| Impact::of(change, device, now));
        let kind = (kind(shown), impact.is_some());
        let counted = self.0.entry(kind).or_default();
        counted.devices += 1;
        if counted.names.len() < MAX_NAMES {
            let name = device.map_or_else(|| id.to_string(), |device| device.label().to_string());
            counted.names.push(name);
        }
    }

    /// The summary of everything that was added.
    #[must_use]
    pub fn summary(self) -> Summary {
        let mut kinds: Vec<_> = self
            .0
            .into_iter()
            .map(
                |((change, is_disruptive), Counted { devices, names })| ChangeKind {
                    change,
                    devices,
                    names,
                    is_disruptive,
                },
            )
            .collect();
        // Stable, so that kinds of the same size stay in the order of their text.
        kinds.sort_by_key(|kind| Reverse((kind.is_disruptive, kind.devices)));
        let disruptive = kinds.iter().filter(|kind| kind.is_disruptive);
        let disruptive = disruptive.map(|kind| kind.devices).sum();
        let others = kinds.split_off(kinds.len().min(MAX_KINDS));
        Summary {
            kinds,
            other_kinds: others.len(),
            other_changes: others.iter().map(|kind| kind.devices).sum(),
            disruptive,
        }
    }
}

/// Without the observed value where it differs from device to device.
fn kind(change: &Change) -> String {
    let field = change.field();
    match change {
        Change::List(ListChange::Tags { before, after }) => {
            format!(
                "{field}: {}",
                entries(after.difference(before), before.difference(after))
            )
        }
        Change::List(ListChange::EnabledRoutes { before, after }) => {
            format!(
                "{field}: {}",
                entries(after.difference(before), before.difference(after))
            )
        }
        Change::Setting { .. } | Change::List(ListChange::ExitNode { .. }) => change.to_string(),
        Change::Attribute { .. }
        | Change::ExpireKey { .. }
        | Change::Delete { .. }
        | Change::NotCompared { .. } => format!("{field}: {}", change.after()),
    }
}

/// `+tag:a -tag:b`
fn entries<T: ToString>(
    added: impl IntoIterator<Item = T>,
    removed: impl IntoIterator<Item = T>,
) -> String {
    let added = added
        .into_iter()
        .map(|entry| format!("+{}", entry.to_string()));
    let removed = removed
        .into_iter()
        .map(|entry| format!("-{}", entry.to_string()));
    added.chain(removed).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::SettingValue, plan::tests::scenes::plain_device};

    fn tags(before: &[&str], after: &[&str]) -> Change {
        let set = |tags: &[&str]| tags.iter().map(|tag| tag.parse().unwrap()).collect();
        Change::List(ListChange::Tags {
            before: set(before),
            after: set(after),
        })
    }

    fn summary(changes: &[Change]) -> Summary {
        let mut tally = Tally::default();
        for change in changes {
            let device = plain_device();
            let device = (&device.node_id, Some(&device));
            tally.add(change, change, device, Timestamp::UNIX_EPOCH);
        }
        tally.summary()
    }

    #[test]
    fn changes_that_differ_by_device_alone_are_one_kind_and_disruptive_kinds_come_first() {
        let key = Change::Setting {
            before: None,
            after: SettingValue::KeyExpiryDisabled(true),
        };
        let summary = summary(&[
            key.clone(),
            key.clone(),
            key,
            tags(&["tag:a", "tag:syd"], &["tag:a"]),
            tags(&["tag:b", "tag:syd"], &["tag:b"]),
        ]);
        let kinds = summary.kinds.iter();
        let kinds: Vec<_> = kinds
            .map(|kind| (&*kind.change, kind.devices, kind.is_disruptive))
            .collect();
        assert_eq!(
            kinds,
            [
                ("tags: -tag:syd", 2, true),
                ("keyExpiry: none → Disabled", 3, false)
            ]
        );
        assert_eq!(summary.disruptive, 2);
    }

    #[test]
    fn kinds_beyond_twenty_are_counted_exactly() {
        let changes: Vec<_> = (0..30)
            .flat_map(|number| {
                let new = format!("tag:n{number}");
                let change = tags(&["tag:a"], &["tag:a", &new]);
                std::iter::repeat_n(change, 30 - number)
            })
            .collect();
        let summary = summary(&changes);
        assert_eq!((summary.kinds.len(), summary.other_kinds), (20, 10));
        let named: usize = summary.kinds.iter().map(|kind| kind.devices).sum();
        assert_eq!(named + summary.other_changes, changes.len());
        assert_eq!(summary.other_changes, 55);
    }
}
