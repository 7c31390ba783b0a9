//! The changes of the plan in groups, as `tsdp plan` shows them.

use maud::{Markup, html};

use crate::{
    cli::{
        output::printable,
        plan::{Group, Severity, View, groups},
    },
    model::counted,
};

/// The most groups with a row.
const MAX_GROUPS: usize = 300;

/// The table of the groups. Empty without changes.
pub(super) fn of(view: &View<'_>) -> Markup {
    let groups = groups(&view.changes);
    html! {
        @if !groups.is_empty() {
            section #changes {
                h2 { "Changes" }
                table.cards {
                    thead { tr { th { "Devices" } th { "Setting" } th { "Change" } th { "Why" } } }
                    tbody {
                        @for group in groups.iter().take(MAX_GROUPS) { (row(group)) }
                    }
                }
                @if groups.len() > MAX_GROUPS {
                    @let rest = &groups[MAX_GROUPS..];
                    @let changes = rest.iter().map(|group| group.changes.len()).sum::<usize>();
                    p.more {
                        "Only counted: " (counted(changes, "change")) " in " (counted(rest.len(), "group"))
                        ". The list of devices has all of them."
                    }
                }
            }
        }
    }
}

fn row(group: &Group<'_>) -> Markup {
    let names: Vec<String> = group.names().map(printable).collect();
    html! {
        tr {
            td data-label="Devices" {
                div {
                    @if names.len() > 1 {
                        details {
                            summary { (group.devices()) }
                            p.names { (names.join(", ")) }
                        }
                    } @else {
                        (printable(&group.devices()))
                    }
                }
            }
            td data-label="Setting" { div { code { (printable(group.field)) } } }
            td data-label="Change" {
                div { @for word in &group.change { span.word.(sign(word)) { (printable(word)) } " " } }
            }
            td data-label="Why" {
                div {
                    @if let Some((class, label)) = badge(group.severity) {
                        span.badge.(class) { (label) } " "
                    }
                    (printable(without_badge(&group.why)))
                }
            }
        }
    }
}

/// The reason without the word that the badge has.
fn without_badge(why: &str) -> &str {
    let rest = ["disruptive: ", "held: "]
        .into_iter()
        .find_map(|word| why.strip_prefix(word));
    rest.unwrap_or(why)
}

/// The class of an added or a removed entry.
fn sign(word: &str) -> &'static str {
    match word.chars().next() {
        Some('+') => "plus",
        Some('-') => "minus",
        _ => "value",
    }
}

fn badge(severity: Severity) -> Option<(&'static str, &'static str)> {
    match severity {
        Severity::Disruptive => Some(("red", "disruptive")),
        Severity::HeldDisruptive => Some(("red", "held, disruptive")),
        Severity::Held => Some(("yellow", "held")),
        Severity::Other => None,
        Severity::OnlyShown => Some(("gray", "only shown")),
    }
}
