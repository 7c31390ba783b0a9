//! The changes of a plan in groups: changes that differ only by their device are one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::view::ChangeView;
use crate::{
    model::{brief, counted},
    plan::{Change, ChangeCause, Difference, Field, Hold, Impact},
};

/// Groups of fewer devices name them.
pub(super) const NAMED: usize = 10;
/// Up to so many observed values have a group each; more are counted in one group.
const MAX_VALUES: usize = 3;

/// What a change asks of its reader. The most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Severity {
    /// It is sent, and can cut a device off.
    Disruptive,
    /// Held; it could cut a device off.
    HeldDisruptive,
    /// Held: someone must act first.
    Held,
    /// It is sent.
    Other,
    /// Its policy only observes or is suspended.
    OnlyShown,
}

/// Changes of one kind on several devices.
#[derive(Debug)]
pub(in crate::cli) struct Group<'a> {
    pub severity: Severity,
    /// The setting, named as in a manifest.
    pub field: &'a str,
    /// The change, as words between which a line can break: `-tag:a`, `+tag:b`.
    pub change: Vec<String>,
    /// Why, by which policies, and why it is held or what it disrupts.
    pub why: String,
    /// One for each device, sorted by its name.
    pub changes: Vec<&'a ChangeView<'a>>,
}

/// What the changes of a group have in common.
type Kind<'a> = (Severity, &'a Field, Edit, String);

/// What a change does to its field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Edit {
    /// The added and the removed entries.
    Entries(Vec<String>, Vec<String>),
    /// The new value.
    Value(String),
    /// The declared value, as the observed one is unknown.
    NotCompared(String),
}

impl Group<'_> {
    /// `75 devices`, or the name of the only one.
    pub fn devices(&self) -> String {
        match self.changes.as_slice() {
            [only] => only.device.to_owned(),
            many => counted(many.len(), "device"),
        }
    }

    /// The names of several devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| change.device)
    }

    /// Whether the names are shown below the group.
    pub fn is_named(&self, all: bool) -> bool {
        self.changes.len() > 1 && (all || self.changes.len() < NAMED)
    }
}

impl Severity {
    fn of(change: &ChangeView<'_>) -> Self {
        match (&change.difference.hold, &change.impact) {
            (Some(Hold::Suspended(_) | Hold::Observed), _) => Self::OnlyShown,
            (Some(_), Some(_)) => Self::HeldDisruptive,
            (Some(_), None) => Self::Held,
            (None, Some(_)) => Self::Disruptive,
            (None, None) => Self::Other,
        }
    }
}

/// Groups the changes, which are sorted by device: the most severe first, then those of the most devices.
pub(in crate::cli) fn groups<'a>(changes: &'a [ChangeView<'a>]) -> Vec<Group<'a>> {
    let mut kinds: BTreeMap<Kind<'a>, Vec<&'a ChangeView<'a>>> = BTreeMap::new();
    for change in changes {
        // Without the user of a device: otherwise each user would have a group.
        let impact = change.impact.clone().map(Impact::of_any_device);
        let why = why(change.difference, impact.as_ref());
        let edit = Edit::of(&change.difference.change);
        let kind = (Severity::of(change), &change.place, edit, why);
        kinds.entry(kind).or_default().push(change);
    }
    let mut groups: Vec<_> = kinds
        .into_iter()
        .flat_map(|(kind, changes)| split(&kind, changes))
        .collect();
    groups.sort_by_cached_key(|group| {
        let first = group.changes.first();
        let first = first.map(|change| (change.device, change.node_id, &change.place));
        (group.severity, Reverse(group.changes.len()), first)
    });
    groups
}

/// A group for each observed value, or one group if they are many.
fn split<'a>(kind: &Kind<'a>, changes: Vec<&'a ChangeView<'a>>) -> Vec<Group<'a>> {
    let (severity, _, edit, why) = kind;
    let mut by_value: BTreeMap<String, Vec<&'a ChangeView<'a>>> = BTreeMap::new();
    for change in changes {
        let before = match edit {
            Edit::Value(_) => change.difference.change.before(),
            Edit::Entries(..) | Edit::NotCompared(_) => String::new(),
        };
        by_value.entry(before).or_default().push(change);
    }
    if by_value.len() > MAX_VALUES {
        let values = counted(by_value.len(), "value");
        let mut changes: Vec<_> = by_value.into_values().flatten().collect();
        changes.sort_by_key(|change| (change.device, change.node_id));
        by_value = BTreeMap::from([(values, changes)]);
    }
    let groups = by_value.into_iter().map(|(before, changes)| Group {
        severity: *severity,
        field: changes.first().map_or("", |change| &change.field),
        change: edit.words(&before),
        why: exact_why(&changes, why),
        changes,
    });
    groups.collect()
}

/// With the user of the device, if all changes have the same one.
fn exact_why(changes: &[&ChangeView<'_>], why_of_any: &str) -> String {
    let impacts: BTreeSet<_> = changes.iter().map(|change| &change.disruptive).collect();
    match changes.first() {
        Some(first) if impacts.len() == 1 => why(first.difference, first.impact.as_ref()),
        _ => why_of_any.to_owned(),
    }
}

impl Edit {
    fn of(change: &Change) -> Self {
        match change {
            Change::List(change) => {
                let (before, after) = (change.before().entries(), change.after().entries());
                Self::Entries(missing_in(&before, &after), missing_in(&after, &before))
            }
            Change::NotCompared { after, .. } => Self::NotCompared(after.clone()),
            other => Self::Value(other.after()),
        }
    }

    fn words(&self, before: &str) -> Vec<String> {
        match self {
            Self::Entries(added, removed) => {
                let mut words = signed('+', added, "added");
                words.extend(signed('-', removed, "removed"));
                words
            }
            Self::Value(after) => vec![before.to_owned(), format!("→ {after}")],
            Self::NotCompared(after) => vec![after.clone()],
        }
    }
}

/// What a change does, as words between which a line can break: `-tag:a`, `+tag:b`.
pub(in crate::cli) fn words(change: &Change) -> Vec<String> {
    Edit::of(change).words(&change.before())
}

/// Those of `entries` that `list` lacks, in their order.
fn missing_in(list: &[String], entries: &[String]) -> Vec<String> {
    let list: BTreeSet<_> = list.iter().collect();
    let missing = entries.iter().filter(|entry| !list.contains(entry));
    missing.cloned().collect()
}

/// `+tag:a`; of a long list also their number.
fn signed(sign: char, entries: &[String], verb: &str) -> Vec<String> {
    let signed: Vec<_> = entries
        .iter()
        .map(|entry| format!("{sign}{entry}"))
        .collect();
    let mut words = brief(&signed);
    if words.len() < signed.len() {
        words.push(format!("({} {verb})", signed.len()));
    }
    words
}

/// Why there is a difference, by which policies, and why it is held or what it disrupts, in one sentence.
fn why(difference: &Difference, impact: Option<&Impact>) -> String {
    let owners: Vec<_> = difference.owners().map(ToString::to_string).collect();
    let why = format!("{} by {}", reason(difference), owners.join(", "));
    match (&difference.hold, impact) {
        // Its words are those of the disruption.
        (Some(hold @ Hold::Disruption(_)), _) | (Some(hold), None) => {
            format!("held: {hold}; {why}")
        }
        // A person who approves it must know.
        (Some(hold), Some(impact)) => format!("disruptive: {impact}; held: {hold}; {why}"),
        (None, Some(impact)) => format!("disruptive: {impact}; {why}"),
        (None, None) => why,
    }
}

/// `drift: declared`; without the cause where it says nothing new.
fn reason(difference: &Difference) -> String {
    let why = difference.why;
    match difference.cause {
        Some(ChangeCause::Drift) => format!("drift: {why}"),
        Some(ChangeCause::Joined) => format!("joined: {why}"),
        Some(ChangeCause::Declared | ChangeCause::Released) | None => why.to_string(),
    }
}
