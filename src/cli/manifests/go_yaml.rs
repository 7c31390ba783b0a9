//! Where go-yaml, with which kubectl reads YAML, differs from YAML 1.2.

use std::borrow::Cow;

use granit_parser::{Event, ScalarStyle, Span, StructureStyle};

use super::text::Text;

/// The breaks of lines that YAML 1.1 has and YAML 1.2 has not. `\u{85}` counts as a line feed.
const NEXT_LINE: char = '\u{85}';

/// A text for a parser of YAML 1.2.
#[derive(Debug)]
pub struct Adapted<'t> {
    pub text: Cow<'t, str>,
    /// For each line of the text: its line in the file, and how many characters are before it there. Empty if
    /// the lines are those of the file. Both count from 0.
    lines: Vec<(usize, usize)>,
}

impl<'t> Adapted<'t> {
    /// A YAML document.
    pub fn yaml(text: &'t str) -> Self {
        if !text.contains(NEXT_LINE) {
            return Self {
                text: Cow::Borrowed(text),
                lines: Vec::new(),
            };
        }
        let mut lines = vec![(0, 0)];
        let (mut line, mut column) = (0, 0);
        for letter in text.chars() {
            column += 1;
            if letter == '\n' {
                (line, column) = (line + 1, 0);
            }
            if letter == '\n' || letter == NEXT_LINE {
                lines.push((line, column));
            }
        }
        Self {
            text: Cow::Owned(text.replace(NEXT_LINE, "\n")),
            lines,
        }
    }

    /// A JSON document: the parser does not accept half a pair of surrogates.
    pub fn json(text: &'t str) -> Self {
        Self {
            text: without_surrogates(text).map_or(Cow::Borrowed(text), Cow::Owned),
            lines: Vec::new(),
        }
    }

    /// The line and column in the file.
    pub fn place(&self, line: usize, column: usize) -> (usize, usize) {
        let (start, before) = self.lines.get(line).copied().unwrap_or((line, 0));
        (start, before + column)
    }
}

/// Writes a surrogate without its pair as kubectl does: U+FFFD.
fn without_surrogates(json: &str) -> Option<String> {
    let mut rest = json;
    let mut text = String::new();
    let mut has_any = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text += before;
        let first = unit(escape);
        let second = first.and_then(|_| unit(escape.get(6..)?));
        let units = first.into_iter().chain(second);
        let letter = char::decode_utf16(units).next();
        let length = if let (Some(0xd800..=0xdfff), Some(letter)) = (first, letter) {
            if letter.is_ok() {
                // The parser knows pairs. They stay as they are, so that the columns after them do too.
                text += &escape[..12];
                12
            } else {
                has_any = true;
                text += "\\ufffd";
                6
            }
        } else {
            // Two, as the second one may be a backslash: of `\\ud83d` nothing is a surrogate.
            let length = escape.chars().take(2).map(char::len_utf8).sum();
            text += &escape[..length];
            length
        };
        rest = &escape[length..];
    }
    has_any.then(|| text + rest)
}

/// The unit of UTF-16 that a text begins with, as `\u` and four digits.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// The first character that kubectl does not accept in YAML, its offset, and why.
pub fn forbidden(text: &str) -> Option<(usize, Text)> {
    text.char_indices().find_map(|(at, letter)| {
        let code = u32::from(letter);
        let why = match letter {
            '\t' | '\n' | '\r' | NEXT_LINE => return None,
            '\u{2028}' | '\u{2029}' => "kubectl reads as the end of a line",
            '\0'..' ' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                "kubectl does not accept in YAML"
            }
            _ => return None,
        };
        let text = Text::new(format!("found the character U+{code:04X}, which {why}"));
        let help = format!("write \\u{code:04x} within double quotes");
        Some((at, text.help(help)))
    })
}

/// What kubectl does not accept in a string in double quotes, as only JSON has it.
pub fn escape_of_json(quoted: &str) -> Option<Text> {
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        if escape.starts_with("\\/") {
            let text = Text::new("kubectl accepts the escape \\/ only in JSON");
            return Some(text.help("write / without the backslash"));
        }
        if matches!(unit(escape), Some(0xd800..=0xdfff)) {
            let text = Text::new("kubectl accepts escapes of surrogates only in JSON");
            return Some(text.help("write the character itself"));
        }
        let length = escape.chars().take(2).map(char::len_utf8).sum();
        rest = &escape[length..];
    }
    None
}

/// Finds tabs at the start of lines that have nothing else, or only a comment.
#[derive(Debug)]
pub struct Tabs<'t> {
    /// The lines of the text. None if it has no tab.
    lines: Vec<&'t str>,
    /// The next line to look at, from 0.
    next: usize,
    /// Whether a scalar without quotes could go on in the next line.
    after_plain: bool,
    /// The columns of the open blocks; `None` for `[` and `{`.
    open: Vec<Option<usize>>,
}

impl<'t> Tabs<'t> {
    pub fn new(text: &'t str) -> Self {
        let lines = if text.contains('\t') {
            text.split('\n').collect()
        } else {
            Vec::new()
        };
        Self {
            lines,
            next: 0,
            after_plain: false,
            open: Vec::new(),
        }
    }

    /// The line and column of a tab before the end of the event that kubectl refuses. Both count from 0.
    pub fn refused(&mut self, event: &Event<'_>, span: &Span) -> Option<(usize, usize)> {
        if self.lines.is_empty() {
            return None;
        }
        let (start, end) = (span.start.line() - 1, span.end.line() - 1);
        let before = match event {
            Event::StreamEnd => self.lines.len(),
            _ => start,
        };
        let mut refused = self.between(before);
        match event {
            Event::Scalar(_, ScalarStyle::Plain, ..) => {
                self.after_plain = true;
                refused = refused.or_else(|| self.between(end));
                // At the end of a text, the span includes the blanks after the scalar.
                if self
                    .lines
                    .get(end)
                    .is_some_and(|line| line.trim().is_empty())
                {
                    refused = refused.or_else(|| self.between(end + 1));
                }
            }
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => {
                refused = refused.or_else(|| self.in_block(start + 1..end));
                self.after_plain = false;
            }
            Event::SequenceStart(style, ..) | Event::MappingStart(style, ..) => {
                let is_block = matches!(style, StructureStyle::Block);
                self.open.push(is_block.then(|| span.start.col()));
                self.after_plain = false;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let was_block = self.open.pop().flatten().is_some();
                self.after_plain &= was_block;
            }
            Event::Scalar(..) | Event::Alias(_) => self.after_plain = false,
            _ => {}
        }
        // The end of a block is no text: it is where the next one begins.
        if span.end.index() > span.start.index() && end + 1 > self.next {
            self.next = end + 1;
            // A colon, a comma or a comment ends the scalar.
            let rest = self
                .lines
                .get(end)
                .and_then(|line| line.get(byte(line, span.end.col())..));
            self.after_plain &= rest.is_none_or(|rest| rest.trim().is_empty());
        }
        refused
    }

    /// Looks at the lines before this one.
    fn between(&mut self, end: usize) -> Option<(usize, usize)> {
        let mut refused = None;
        while self.next < end.min(self.lines.len()) {
            let line = self.lines[self.next];
            let content = line.trim_start_matches([' ', '\t']).trim_end();
            let tab = line
                .find('\t')
                .filter(|tab| *tab < line.len() - line.trim_start().len());
            if let Some(tab) = tab.filter(|_| content.is_empty() || content.starts_with('#'))
                && refused.is_none()
                && self.refuses(tab)
            {
                refused = Some((self.next, tab));
            }
            self.after_plain &= content.is_empty();
            self.next += 1;
        }
        refused
    }

    fn refuses(&self, tab: usize) -> bool {
        if self.after_plain {
            // Within the indentation of the scalar.
            let block = self.open.iter().rev().flatten().next();
            return block.is_some_and(|block| tab <= *block);
        }
        // In brackets any white space may stand between two values.
        !matches!(self.open.last(), Some(None))
    }

    /// Looks at the lines of a text after `|` or `>`.
    fn in_block(&self, lines: std::ops::Range<usize>) -> Option<(usize, usize)> {
        let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let all = || {
            lines
                .clone()
                .filter_map(|number| Some((number, *self.lines.get(number)?)))
        };
        let indent = all().find(|(_, line)| !line.trim().is_empty());
        let indent = indent.map_or(usize::MAX, |(_, line)| spaces(line));
        all().find_map(|(number, line)| {
            let column = spaces(line);
            let is_tab = line.as_bytes().get(column) == Some(&b'\t');
            (is_tab && column < indent).then_some((number, column))
        })
    }
}

/// The offset of a character in a line.
fn byte(line: &str, column: usize) -> usize {
    line.char_indices()
        .nth(column)
        .map_or(line.len(), |(at, _)| at)
}
