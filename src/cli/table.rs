//! Tables for people.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use crate::plan::{ChangeCause, Difference, Hold, Impact};

/// How a table looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// The width in columns; `None` does not wrap lines.
    pub width: Option<u16>,
    /// Whether it is colored.
    pub color: bool,
}

impl Style {
    /// A table with these titles, without lines.
    #[must_use]
    pub fn table<'a>(self, titles: impl IntoIterator<Item = &'a str>) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // The caller decides about colors. The library must not, by checking for a terminal.
        table.force_no_tty();
        if self.color {
            table.enforce_styling();
        }
        if let Some(width) = self.width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        table.set_header(titles);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// A cell, colored if the style is.
    #[must_use]
    pub fn cell(self, text: impl ToString, color: Option<Color>) -> Cell {
        let cell = Cell::new(text);
        match color.filter(|_| self.color) {
            Some(color) => cell.fg(color),
            None => cell,
        }
    }
}

/// A table as text, without trailing spaces.
#[must_use]
pub fn lines(table: &Table) -> String {
    let text = table.to_string();
    // The library pads every line: invisible in a terminal, noise in a file.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// The differences as a table for people: device, field, observed and desired value, and why.
#[must_use]
pub fn table<'a>(
    differences: impl IntoIterator<Item = (&'a Difference, Option<Impact>)>,
    style: Style,
) -> String {
    let mut table = style.table(["DEVICE", "SETTING", "NOW", "DECLARED", "WHY"]);
    for (difference, impact) in differences {
        // Grey: only shown. Yellow: someone must act first. Red: it is sent, and can cut a device
        // off.
        let color = match (&difference.hold, &impact) {
            (Some(Hold::Suspended(_) | Hold::Observed), _) => Color::DarkGrey,
            (Some(_), _) => Color::DarkYellow,
            (None, Some(_)) => Color::DarkRed,
            (None, None) => Color::DarkGreen,
        };
        table.add_row([
            Cell::new(&difference.device),
            Cell::new(difference.change.field()),
            Cell::new(difference.change.before()),
            style.cell(difference.change.after(), Some(color)),
            style.cell(why(difference, impact.as_ref()), Some(color)),
        ]);
    }
    lines(&table)
}

/// Why there is a difference, by which policies, and why it is held or what it disrupts, in one sentence.
#[must_use]
pub fn why(difference: &Difference, impact: Option<&Impact>) -> String {
    let owners = difference
        .owners()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    match (&difference.hold, impact) {
        // Its words are those of the disruption.
        (Some(hold @ Hold::Disruption(_)), _) | (Some(hold), None) => format!("held: {hold}"),
        // A person who approves it must know.
        (Some(hold), Some(impact)) => format!("held: {hold}; disruptive: {impact}"),
        (None, Some(impact)) => {
            let reason = reason(difference);
            format!("{reason} by {owners}; disruptive: {impact}")
        }
        (None, None) => format!("{} by {owners}", reason(difference)),
    }
}

/// `drift: declared`; without the cause where it says nothing new.
#[must_use]
pub fn reason(difference: &Difference) -> String {
    let why = difference.why;
    match difference.cause {
        Some(ChangeCause::Drift) => format!("drift: {why}"),
        Some(ChangeCause::Joined) => format!("joined: {why}"),
        Some(ChangeCause::Declared | ChangeCause::Released) | None => why.to_string(),
    }
}
