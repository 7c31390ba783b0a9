//! Released settings and notes as sentences. Those that differ only by their device are one if they are many.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    group::NAMED,
    view::{Note, ReleasedView},
};
use crate::{
    model::{brief, counted},
    plan::Field,
};

/// A sentence for each released setting, or for all of one policy and field.
pub(in crate::cli) fn released_lines(released: &[ReleasedView<'_>], all: bool) -> Vec<String> {
    let mut kinds: BTreeMap<_, Vec<&ReleasedView<'_>>> = BTreeMap::new();
    for setting in released {
        let kind = (&setting.policy, &setting.field);
        kinds.entry(kind).or_default().push(setting);
    }
    let (few, many): (Vec<_>, Vec<_>) = kinds
        .into_values()
        .partition(|settings| all || settings.len() < NAMED);
    let few: BTreeSet<_> = few.into_iter().flatten().map(std::ptr::from_ref).collect();
    let mut lines: Vec<_> = many
        .iter()
        .map(|settings| released_on_many(settings))
        .collect();
    // In the order of the devices, so that the settings of one are together.
    let named = released
        .iter()
        .filter(|it| few.contains(&std::ptr::from_ref(*it)));
    lines.extend(named.map(|it| sentence(it.device, it, it.value)));
    lines
}

fn released_on_many(settings: &[&ReleasedView<'_>]) -> String {
    let values: BTreeSet<_> = settings.iter().map(|setting| setting.value).collect();
    let devices = counted(settings.len(), "device");
    let common = values
        .first()
        .copied()
        .flatten()
        .filter(|_| values.len() == 1);
    match settings.first() {
        Some(first) => sentence(&devices, first, common),
        None => String::new(),
    }
}

fn sentence(devices: &str, setting: &ReleasedView<'_>, value: Option<&str>) -> String {
    let value = match (value, &setting.place) {
        (None, _) => String::new(),
        (Some(list), Field::List(_)) => {
            let entries: Vec<_> = list.split(',').map(str::to_owned).collect();
            format!(" ({})", brief(&entries).join(","))
        }
        (Some(value), _) => format!(" ({value})"),
    };
    let (field, outcome, policy) = (&setting.field, setting.outcome, &setting.policy);
    format!("{devices}: {field}{value} {outcome} (was declared by {policy})")
}

/// The notes, each with its policy. Many overridden fields are one note.
pub(super) fn notes_in_groups(notes: &[Note], all: bool) -> Vec<(String, String)> {
    let mut devices: BTreeMap<_, usize> = BTreeMap::new();
    for note in notes {
        if let Some(overridden) = &note.overridden {
            *devices.entry((&note.policy, overridden)).or_default() += 1;
        }
    }
    let mut grouped = BTreeSet::new();
    let mut lines = Vec::new();
    for note in notes {
        let overridden = note.overridden.as_ref();
        let kind = overridden.map(|overridden| (&note.policy, overridden));
        let count = kind.as_ref().and_then(|kind| devices.get(kind).copied());
        let message = match (overridden, count) {
            (Some(overridden), Some(count)) if !all && count >= NAMED => {
                if !grouped.insert(kind) {
                    continue;
                }
                overridden.on(&counted(count, "device"))
            }
            _ => note.message.clone(),
        };
        lines.push((note.policy.clone(), message));
    }
    lines
}

/// The same as sentences.
pub(in crate::cli) fn note_lines(notes: &[Note], all: bool) -> Vec<String> {
    let notes = notes_in_groups(notes, all).into_iter();
    notes
        .map(|(policy, message)| format!("{policy}: {message}"))
        .collect()
}
