//! The policies, and how many devices each of them manages.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::devices::Row;
use crate::{
    cli::{
        output::printable,
        plan::{PlanRun, View, note_lines, released_lines},
    },
    model::{NodeId, counted},
};

/// The most notes that are written.
const MAX_NOTES: usize = 200;

/// The numbers of a policy.
#[derive(Debug, Default)]
struct Numbers<'a> {
    devices: usize,
    /// The devices with a change that it declares.
    changing: BTreeSet<&'a NodeId>,
    held: usize,
}

/// The table of the policies, and the notes on them.
pub(super) fn of(run: &PlanRun, view: &View<'_>, rows: &[Row]) -> Markup {
    let mut policies: BTreeMap<String, Numbers<'_>> = BTreeMap::new();
    for policy in &run.policies {
        policies.entry(policy.key.to_string()).or_default();
    }
    for key in rows.iter().flat_map(|row| row.policies.iter().flatten()) {
        policies.entry(key.clone()).or_default().devices += 1;
    }
    for change in &view.changes {
        for key in &change.policies {
            let numbers = policies.entry(key.clone()).or_default();
            numbers.changing.insert(change.node_id);
            numbers.held += usize::from(change.held.is_some());
        }
    }
    let notes = note_lines(&view.notes, false);
    let released = released_lines(&view.released, false);
    let notes: Vec<&String> = notes.iter().chain(&released).collect();
    html! {
        section #policies {
            h2 { "Policies" }
            @if policies.is_empty() { p { "No policy belongs to this tailnet." } }
            @else {
                table.cards {
                    thead { tr { th { "Policy" } th { "Devices" } th { "Devices with changes" } th { "Held changes" } } }
                    tbody {
                        @for (key, numbers) in &policies {
                            tr {
                                td data-label="Policy" { div { a href=(link(key)) { (printable(key)) } } }
                                td data-label="Devices" { div { (numbers.devices) } }
                                td data-label="Devices with changes" { div { (numbers.changing.len()) } }
                                td data-label="Held changes" { div { (numbers.held) } }
                            }
                        }
                    }
                }
            }
            @if !notes.is_empty() {
                h3 { "Notes" }
                ul.notes { @for note in notes.iter().take(MAX_NOTES) { li { (printable(note)) } } }
                @if notes.len() > MAX_NOTES {
                    p.more { "… and " (counted(notes.len() - MAX_NOTES, "note")) " not shown." }
                }
            }
        }
    }
}

/// The fragment with which the page shows the devices of a policy. Keys of policies are names of Kubernetes objects.
fn link(key: &str) -> String {
    format!("#q={key}")
}
