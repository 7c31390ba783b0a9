//! A plan as a comment on a pull request.

use std::fmt::Write as _;

use super::view::{ChangeView, ReleasedView, View};
use crate::{
    cli::{output::printable, table},
    plan::Hold,
};

/// GitHub accepts comments of 65,536 characters, GitLab longer ones. The rest is for the text around the
/// plan.
const MAX_LENGTH: usize = 60_000;

/// The plan in `GitHub`'s Markdown: a heading, a table, and notes.
pub(super) fn render(view: &View<'_>) -> String {
    let mut text = format!("### tsdp plan\n\n{}\n", view.totals);
    if !view.changes.is_empty() || !view.released.is_empty() {
        text += "\n| device | setting | now | declared | why |\n|---|---|---|---|---|\n";
    }
    let changes = view.changes.iter().map(change);
    let rows = changes.chain(view.released.iter().map(released));
    let total = view.changes.len() + view.released.len();
    for (reported, row) in rows.enumerate() {
        // In bytes, of which a text has at least as many as characters.
        if text.len() + row.len() > MAX_LENGTH {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n… and {} more.", total - reported);
            break;
        }
        text += &row;
    }
    let mut notes = view.notes.iter().peekable();
    if notes.peek().is_some() {
        text.push('\n');
    }
    for note in notes {
        let row = format!("- {}: {}\n", code(&note.policy), prose(&note.message));
        if text.len() + row.len() > MAX_LENGTH {
            text += "- …\n";
            break;
        }
        text += &row;
    }
    text
}

/// The row of a change.
fn change(change: &ChangeView<'_>) -> String {
    let why = match (&change.held, &change.disruptive) {
        (Some(held), Some(lost)) if !is_held_for_disruption(change) => {
            format!("**held**: {}; **disruptive**: {}", prose(held), prose(lost))
        }
        (Some(held), _) => format!("**held**: {}", prose(held)),
        (None, Some(lost)) => format!(
            "{} by {}; **disruptive**: {}",
            table::reason(change.difference),
            code(&change.policies.join(", ")),
            prose(lost)
        ),
        (None, None) => format!(
            "{} by {}",
            table::reason(change.difference),
            code(&change.policies.join(", "))
        ),
    };
    format!(
        "| {} | {} | {} | {} | {why} |\n",
        code(change.device),
        code(&change.field),
        code(&change.before),
        code(&change.after),
    )
}

/// Whether the reason of the hold says what the change disrupts.
fn is_held_for_disruption(change: &ChangeView<'_>) -> bool {
    matches!(change.difference.hold, Some(Hold::Disruption(_)))
}

/// The row of a setting that stays.
fn released(setting: &ReleasedView<'_>) -> String {
    format!(
        "| {} | {} | {} | | {}; was declared by {} |\n",
        code(setting.device),
        code(&setting.field),
        setting.value.map(code).unwrap_or_default(),
        setting.outcome,
        code(&setting.policy),
    )
}

/// A code span in a table cell. Nothing in it acts as markup or mentions a user.
fn code(text: &str) -> String {
    format!(
        "`{}`",
        // A backtick would end the span, and GitHub splits a cell at a pipe even within one.
        printable(text).replace('`', "'").replace('|', "\\|")
    )
}

/// Text outside of code spans: escapes markup, so that a device's name can neither hide nor forge content.
fn prose(text: &str) -> String {
    let mut plain = String::new();
    for letter in printable(text).chars() {
        if matches!(
            letter,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~'
        ) {
            plain.push('\\');
        }
        plain.push(letter);
        if letter == '@' {
            // A word joiner: without it GitHub would notify a user of that name.
            plain.push('\u{2060}');
        }
    }
    plain
}
