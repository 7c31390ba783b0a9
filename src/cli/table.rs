//! Tables for people.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};
use unicode_width::UnicodeWidthStr;

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
            // Else it writes none with NO_COLOR, against which an explicit flag takes precedence.
            crossterm::style::force_color_output(true);
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

    /// A line with the part after so many columns in a color of ANSI.
    #[must_use]
    pub fn painted(self, line: &str, after: usize, color: u8) -> String {
        let start = line.char_indices().nth(after).map(|(at, _)| at);
        match start.filter(|_| self.color) {
            Some(at) => format!("{}\u{1b}[{color}m{}\u{1b}[39m", &line[..at], &line[at..]),
            None => line.to_owned(),
        }
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

/// The spaces after a column.
const GAP: usize = 2;

/// Makes each column as wide as its longest word, so that no name is broken in the middle. Hides these columns, one
/// after the other, as long as the table does not fit.
pub fn keep_words(table: &mut Table, style: Style, optional: &[&str]) {
    let Some(room) = style.width.map(usize::from) else {
        return;
    };
    let titles = cells(table.header());
    let mut widths: Vec<usize> = titles.iter().map(|title| longest_word(title)).collect();
    for row in table.row_iter() {
        for (width, cell) in widths.iter_mut().zip(cells(Some(row))) {
            *width = (*width).max(longest_word(&cell));
        }
    }
    for title in optional {
        // The last column needs no gap.
        let used: usize = widths.iter().filter(|it| **it > 0).map(|it| it + GAP).sum();
        if used <= room + GAP {
            break;
        }
        if let Some(at) = titles.iter().position(|it| it == title) {
            widths[at] = 0;
        }
    }
    for (column, width) in table.column_iter_mut().zip(widths) {
        let width = u16::try_from(width + GAP).unwrap_or(u16::MAX);
        column.set_constraint(match width {
            2 => ColumnConstraint::Hidden,
            width => ColumnConstraint::LowerBoundary(Width::Fixed(width)),
        });
    }
}

fn cells(row: Option<&Row>) -> Vec<String> {
    let cells = row.into_iter().flat_map(Row::cell_iter);
    cells.map(Cell::content).collect()
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace()
        .map(UnicodeWidthStr::width)
        .max()
        .unwrap_or(0)
}

/// A table as text, without trailing spaces.
#[must_use]
pub fn lines(table: &Table) -> String {
    let text = table.to_string();
    // The library pads every line: invisible in a terminal, noise in a file.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}
