//! What programs print, without what differs from run to run.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

/// The hashes of the page, in the order in which a run freezes plans.
const HASHES: [&str; 4] = [
    "3f2a9c0b7d41e856",
    "b81c47e0d92f6a35",
    "60d7f3a12c9e4b58",
    "e94b5c08a7136fd2",
];

/// Keeps the order of the hashes of a run.
#[derive(Default)]
pub struct Steady {
    hashes: Vec<String>,
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static HASH: LazyLock<Regex> = LazyLock::new(|| pattern("plan:([0-9a-f]{16})"));
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[0-9]+[smh]([0-9]+[sm])?$"));
static REPEATED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[0-9]+[smh]([0-9]+s)? \(x[0-9]+ over [0-9smh]+\)$"));

impl Steady {
    /// A text whose tables are aligned again.
    pub fn text(&mut self, text: &str) -> String {
        let mut steady = text.to_owned();
        for (varying, fixed) in [
            (r"REQ-[0-9A-Za-z-]+", "REQ-7c41d09e"),
            (r"127\.0\.0\.1:[0-9]+", "127.0.0.1:8080"),
            (r"\b[0-9]+[smh]([0-9]+[sm])? ago\b", "2s ago"),
            (r"tsdp_[0-9a-f]{8}", "tsdp-7d9c4b6f5-x2x4k"),
            (r"leader: [^,]+,", "leader: tsdp-7d9c4b6f5-x2x4k,"),
            (r"tsdp [0-9]+\.[0-9]+\.[0-9]+\S*", "tsdp 1.0.0"),
        ] {
            steady = pattern(varying).replace_all(&steady, fixed).into_owned();
        }
        let steady = self.hashes(&steady).into_owned();
        tables(&steady)
    }

    fn hashes<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        HASH.replace_all(text, |found: &Captures<'_>| {
            let hash = &found[1];
            let place = self.hashes.iter().position(|known| known == hash);
            let place = place.unwrap_or_else(|| {
                self.hashes.push(hash.to_owned());
                self.hashes.len() - 1
            });
            format!("plan:{}", HASHES[place])
        })
    }
}

/// Aligns each table again, with one placeholder for ages.
fn tables(text: &str) -> String {
    let mut out = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !is_header(line) {
            out.push(line.trim_end().to_owned());
            continue;
        }
        let starts = starts(line);
        let mut rows = vec![cells(line, &starts)];
        while let Some(row) = lines.next_if(|row| !row.trim().is_empty() && !is_header(row)) {
            rows.push(cells(row, &starts));
        }
        out.extend(aligned(&rows));
    }
    out.join("\n") + "\n"
}

/// `NAME  READY`, and the Events of `kubectl describe`.
fn is_header(line: &str) -> bool {
    let is_upper = |c: char| c.is_ascii_uppercase() || c == ' ';
    let is_of_events = line.trim_start().starts_with("Type ") && line.ends_with("Message");
    is_of_events || (line.trim_end().contains("  ") && line.chars().all(is_upper))
}

/// Where the columns of a header start.
fn starts(header: &str) -> Vec<usize> {
    let letters: Vec<char> = header.chars().collect();
    let blank = |at: Option<usize>| at.is_none_or(|at| letters[at] == ' ');
    let starts_here =
        |at: &usize| letters[*at] != ' ' && blank(at.checked_sub(1)) && blank(at.checked_sub(2));
    (0..letters.len()).filter(starts_here).collect()
}

fn cells(row: &str, starts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = row.chars().collect();
    let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
    let cell = |(start, end): (&usize, usize)| {
        let end = end.min(letters.len());
        let cell: String = letters
            .get(*start..end)
            .unwrap_or_default()
            .iter()
            .collect();
        let cell = cell.trim();
        if AGE.is_match(cell) || REPEATED.is_match(cell) {
            "2m".to_owned()
        } else {
            cell.to_owned()
        }
    };
    starts.iter().zip(ends).map(cell).collect()
}

fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
