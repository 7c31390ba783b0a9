//! A plan for a terminal.

use unicode_width::UnicodeWidthStr as _;

use super::{
    group::{Group, Severity, groups},
    notes::{note_lines, released_lines},
    view::View,
};
use crate::cli::{
    lines::{padded, wrapped},
    output::{self, Color, printable},
    table::Style,
};

/// The titles of the columns; the last one has no end.
const TITLES: [&str; 3] = ["DEVICES", "SETTING", "CHANGE"];
/// The most columns of a setting before the change beside it moves to the right.
const MAX_SETTING: usize = 24;
/// Between two columns.
const GAP: usize = 2;

impl View<'_> {
    /// The plan for a terminal, or for a file if stdout is one.
    pub fn text(&self, color: Color, all: bool) -> String {
        let style = Style {
            width: output::width(),
            color: color.is_on(),
        };
        render(self, style, all)
    }
}

/// The groups of a plan, the notes and the totals. `all` names every device.
pub(super) fn render(view: &View<'_>, style: Style, all: bool) -> String {
    let mut text = String::new();
    // Empty parts leave no empty line behind.
    let mut part = |lines: Vec<String>| {
        if !lines.is_empty() {
            text += &lines.join("\n");
            text += "\n\n";
        }
    };
    part(table(&groups(&view.changes), style, all));
    part(flowing(released_lines(&view.released, all), style));
    part(flowing(note_lines(&view.notes, all), style));
    let totals = flowing([view.totals.to_string()], style);
    text + &totals.join("\n") + "\n"
}

/// Sentences, of which each begins a line.
fn flowing(sentences: impl IntoIterator<Item = String>, style: Style) -> Vec<String> {
    let lines = sentences
        .into_iter()
        .flat_map(|sentence| match style.width {
            Some(width) => wrapped(sentence.split(' '), GAP, width.into()),
            None => vec![printable(&sentence)],
        });
    lines.collect()
}

/// A row for each group.
pub(super) fn table(groups: &[Group<'_>], style: Style, all: bool) -> Vec<String> {
    if groups.is_empty() {
        return Vec::new();
    }
    let columns = Columns::of(groups, style);
    let mut lines = columns.row(TITLES[0], TITLES[1], &[TITLES[2].to_owned()], None);
    lines.extend(groups.iter().flat_map(|group| columns.group(group, all)));
    lines
}

/// Where the columns are.
struct Columns {
    style: Style,
    devices: usize,
    setting: usize,
}

impl Columns {
    fn of(groups: &[Group<'_>], style: Style) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
        let devices = widest(
            &mut groups
                .iter()
                .map(|group| printable(&group.devices()).width()),
        );
        let settings = groups.iter().map(|group| group.field.width());
        let setting = widest(&mut settings.filter(|width| *width <= MAX_SETTING));
        let most = style
            .width
            .map_or(usize::MAX, |width| usize::from(width) / 3);
        Self {
            style,
            devices: devices.max(TITLES[0].len()).min(most),
            setting: setting.max(TITLES[1].len()),
        }
    }

    /// The change, its reason, and the names of the devices if they are few.
    fn group(&self, group: &Group<'_>, all: bool) -> Vec<String> {
        let why = format!("({})", group.why);
        let mut lines = self.row(&group.devices(), group.field, &group.change, Some(&why));
        for line in &mut lines {
            *line = self
                .style
                .painted(line, self.indent(), color(group.severity));
        }
        if group.is_named(all) {
            let names: Vec<_> = group.names().collect();
            let names = names.join(", ");
            lines.extend(self.block(names.split(' ')));
        }
        lines
    }

    /// Where changes begin.
    fn indent(&self) -> usize {
        self.devices + GAP
    }

    /// Everything on one line if there is room. Otherwise the reason is below the change.
    fn row(
        &self,
        devices: &str,
        setting: &str,
        change: &[String],
        why: Option<&str>,
    ) -> Vec<String> {
        let devices = printable(devices);
        let setting = padded(setting, self.setting);
        let mut line = padded(&devices, self.indent());
        if !line.ends_with("  ") {
            line += "  ";
        }
        line += &printable(&format!("{setting}  {}", change.join(" ")));
        let whole = match why {
            Some(why) => format!("{line}  {}", printable(why)),
            None => line.clone(),
        };
        let Some(width) = self.style.width.map(usize::from) else {
            return vec![whole];
        };
        if whole.width() <= width {
            return vec![whole];
        }
        let mut lines = if line.width() <= width {
            vec![line]
        } else {
            self.broken(&devices, setting.trim_end(), change, width)
        };
        lines.extend(self.block(why.into_iter().flat_map(|why| why.split(' '))));
        lines
    }

    /// A change that needs several lines.
    fn broken(&self, devices: &str, setting: &str, change: &[String], width: usize) -> Vec<String> {
        let indent = self.indent();
        let mut lines = Vec::new();
        let words = change.iter().flat_map(|word| word.split(' '));
        let words = std::iter::once(setting).chain(words);
        if devices.width() > self.devices {
            lines.extend(wrapped([devices], GAP, width));
            lines.extend(self.block(words));
            return lines;
        }
        // The device takes the place of the indent.
        let mut block = self.block(words);
        if let Some(first) = block.first_mut() {
            *first = padded(devices, indent) + first.trim_start();
        }
        block
    }

    /// Words below the first line of a group.
    fn block<'b>(&self, words: impl IntoIterator<Item = &'b str>) -> Vec<String> {
        let Some(width) = self.style.width.map(usize::from) else {
            let words: Vec<_> = words.into_iter().map(printable).collect();
            return vec![" ".repeat(GAP) + &words.join(" ")];
        };
        let indent = self.indent();
        let lines = wrapped(words, 0, width.saturating_sub(indent));
        let lines = lines.into_iter().map(|line| " ".repeat(indent) + &line);
        lines.collect()
    }
}

/// Red: it is sent, and can cut a device off. Yellow: someone must act first. Gray: only shown.
fn color(severity: Severity) -> u8 {
    match severity {
        Severity::Disruptive => 31,
        Severity::HeldDisruptive | Severity::Held => 33,
        Severity::Other => 32,
        Severity::OnlyShown => 90,
    }
}
