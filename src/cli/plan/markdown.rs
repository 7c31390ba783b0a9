//! A plan as a comment on a pull request.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    group::{Group, Severity, groups},
    notes::{notes_in_groups, released_lines},
    view::View,
};
use crate::{cli::output::printable, model::counted};

/// GitHub accepts comments of 65,536 characters, GitLab longer ones. The rest is for the text around the
/// plan. Counted in bytes, of which a text has at least as many as characters.
const MAX_LENGTH: usize = 60_000;
/// What the rows may fill, so that the counts of other groups, released settings and notes have room too.
const MAX_ROWS: usize = 32_000;
/// What the rows may fill together with the groups that are only counted.
const MAX_GROUPS: usize = 44_000;
/// What the released settings may fill together with the groups. In between are the groups that are counted
/// together, at most three thousand characters.
const MAX_RELEASED: usize = 52_000;
/// The most characters of one value or reason.
const MAX_TEXT: usize = 600;
/// The most characters of the change of a group that is only counted.
const MAX_COUNTED_TEXT: usize = 80;

/// The plan in `GitHub`'s Markdown: a heading with the numbers, a row for each group, and notes. `all` names
/// every device.
pub(super) fn render(view: &View<'_>, all: bool) -> String {
    let mut text = format!("### tsdp plan\n\n{}\n", view.totals);
    add_groups(&mut text, &groups(&view.changes), all);
    let released = released_lines(&view.released, all);
    let released = released
        .iter()
        .map(|line| prose(&shortened(line, MAX_TEXT)));
    add_list(
        &mut text,
        released.collect(),
        MAX_RELEASED,
        "released setting",
    );
    let notes = notes_in_groups(&view.notes, all).into_iter();
    let notes = notes.map(|(policy, message)| {
        format!(
            "{}: {}",
            code(&policy),
            prose(&shortened(&message, MAX_TEXT))
        )
    });
    add_list(&mut text, notes.collect(), MAX_LENGTH, "note");
    text
}

/// A table of the groups that have room, and the counts of the others.
fn add_groups(text: &mut String, groups: &[Group<'_>], all: bool) {
    let mut table = "\n| devices | setting | change | why |\n|---|---|---|---|\n".to_owned();
    let mut shown = 0;
    for group in groups {
        let row = row(group, all);
        let row = match MAX_ROWS.checked_sub(text.len() + table.len()) {
            Some(room) if row.len() <= room => row,
            // The number of the devices says more than no row.
            Some(room) => match self::row(group, false) {
                row if row.len() <= room => row,
                _ => break,
            },
            None => break,
        };
        table += &row;
        shown += 1;
    }
    // Never the titles alone.
    if shown > 0 {
        text.push_str(&table);
    }
    add_rest(text, &groups[shown..]);
}

/// The groups that have no row: a count for each, and for those that have no room either by severity and setting.
fn add_rest(text: &mut String, groups: &[Group<'_>]) {
    if groups.is_empty() {
        return;
    }
    let changes = groups.iter().map(|group| group.changes.len()).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nOnly counted: {} in {}.\n",
        counted::<usize>(changes, "change"),
        counted(groups.len(), "group")
    );
    let mut lines = groups.iter().map(|group| {
        let change = shortened(&group.change.join(" "), MAX_COUNTED_TEXT);
        let place = [code(group.field), code(&change)].join(" ");
        count(place.trim_end(), group.changes.len(), group.severity)
    });
    let mut shown = 0;
    for line in lines.by_ref() {
        if text.len() + line.len() > MAX_GROUPS {
            break;
        }
        text.push_str(&line);
        shown += 1;
    }
    let mut kinds: BTreeMap<(Severity, String), usize> = BTreeMap::new();
    for group in &groups[shown..] {
        // Each attribute is a field, and there can be thousands.
        let field = group.changes.first().map(|change| change.place.of_spec());
        let field = field.map(|field| field.to_string()).unwrap_or_default();
        *kinds.entry((group.severity, field)).or_default() += group.changes.len();
    }
    if !kinds.is_empty() {
        let _ = writeln!(
            text,
            "\nIn {}:\n",
            counted(groups.len() - shown, "more group")
        );
    }
    for ((severity, field), changes) in kinds {
        text.push_str(&count(&code(&field), changes, severity));
    }
}

fn count(place: &str, changes: usize, severity: Severity) -> String {
    format!(
        "- {place}: {}{}\n",
        counted(changes, "change"),
        label(severity)
    )
}

fn label(severity: Severity) -> &'static str {
    match severity {
        Severity::Disruptive => ", **disruptive**",
        Severity::HeldDisruptive => ", **held** and **disruptive**",
        Severity::Held => ", **held**",
        Severity::Other => "",
        Severity::OnlyShown => ", only shown",
    }
}

/// A list of the items that have room, and the count of the others.
fn add_list(text: &mut String, items: Vec<String>, most: usize, noun: &str) {
    let total = items.len();
    for (shown, item) in items.into_iter().enumerate() {
        if shown == 0 {
            text.push('\n');
        }
        if text.len() + item.len() + 100 > most {
            let more = counted(total - shown, noun);
            let _ = writeln!(text, "- … and {more} not shown");
            break;
        }
        let _ = writeln!(text, "- {item}");
    }
}

/// The row of a group.
fn row(group: &Group<'_>, all: bool) -> String {
    let devices = if group.is_named(all) {
        let names: Vec<_> = group.names().map(code).collect();
        format!("{}: {}", group.devices(), names.join(", "))
    } else if group.changes.len() == 1 {
        code(&group.devices())
    } else {
        group.devices()
    };
    format!(
        "| {devices} | {} | {} | {} |\n",
        code(group.field),
        code(&group.change.join(" ")),
        why(group),
    )
}

/// The reason, with the words that matter most in bold.
fn why(group: &Group<'_>) -> String {
    let mut why = prose(&shortened(&group.why, MAX_TEXT));
    for word in ["disruptive: ", "held: "] {
        let at = match (why.starts_with(word), why.find(&format!("; {word}"))) {
            (true, _) => 0,
            (false, Some(at)) if word == "held: " => at + 2,
            _ => continue,
        };
        let bold = format!("**{}**: ", word.trim_end_matches(": "));
        why.replace_range(at..at + word.len(), &bold);
    }
    why
}

/// At most so many characters: the beginning, the end, and the number of those between.
fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    let Some(left_out) = letters.len().checked_sub(most).filter(|count| *count > 0) else {
        return text.to_owned();
    };
    let end = letters.len() - most / 3;
    let first: String = letters[..end - left_out].iter().collect();
    let last: String = letters[end..].iter().collect();
    format!("{first} … {left_out} characters … {last}")
}

/// A code span in a table cell. Nothing in it acts as markup or mentions a user.
fn code(text: &str) -> String {
    // Without spaces around it, which a code span would drop.
    let text = printable(shortened(text, MAX_TEXT).trim());
    // Two backticks would begin a longer span.
    if text.is_empty() {
        return String::new();
    }
    // A backtick would end the span, and GitHub splits a cell at a pipe even within one.
    format!("`{}`", text.replace('`', "'").replace('|', "\\|"))
}

/// Text outside of code spans: escapes markup, so that a device's name can neither hide nor forge content, and
/// breaks what GitHub and GitLab turn into links: `@user`, `#1`, `!1`, `https://`, `www.`, `GH-1`.
fn prose(text: &str) -> String {
    let text = printable(text);
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(
            letter,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' | '$' | '!'
        ) {
            plain.push('\\');
        }
        // A word joiner: an invisible character, which is part of no link. Before the letter after a sign, and
        // before a dot or hyphen within a word.
        let breaks_a_word = match letter {
            '.' => ends_with(&plain, "www"),
            '-' => ends_with(&plain, "gh"),
            '/' => plain.ends_with(':'),
            _ => false,
        };
        if breaks_a_word {
            plain.push('\u{2060}');
        }
        plain.push(letter);
        if matches!(letter, '@' | '#' | '!' | '~' | '%' | '$' | '&') {
            plain.push('\u{2060}');
        }
    }
    plain
}

/// Whatever the case.
fn ends_with(text: &str, word: &str) -> bool {
    let last = text
        .len()
        .checked_sub(word.len())
        .and_then(|at| text.get(at..));
    last.is_some_and(|last| last.eq_ignore_ascii_case(word))
}
