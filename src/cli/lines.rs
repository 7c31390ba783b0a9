//! Lines of a terminal of any width.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::cli::output::printable;

/// Breaks words into lines of at most so many columns: the first word stands at the beginning, and each further
/// line is indented. A word that is wider than a line is cut.
pub(super) fn wrapped<T: AsRef<str>>(
    words: impl IntoIterator<Item = T>,
    indent: usize,
    width: usize,
) -> Vec<String> {
    // Less than a few columns hold no word, whatever the indent.
    let indent = indent.min(width.saturating_sub(8));
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut is_empty = true;
    for word in words {
        let mut word = printable(word.as_ref());
        loop {
            let gap = usize::from(!is_empty);
            if line.width() + gap + word.width() <= width {
                line.push_str(&" ".repeat(gap));
                line.push_str(&word);
                is_empty = false;
                break;
            }
            if is_empty {
                let rest = word.split_off(end_within(&word, width.saturating_sub(line.width())));
                line.push_str(&word);
                word = rest;
            }
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            is_empty = true;
        }
    }
    if !is_empty {
        lines.push(line);
    }
    lines
}

/// The number of bytes that fit into so many columns; at least one character, so that there is an end.
fn end_within(word: &str, width: usize) -> usize {
    let mut columns = 0;
    for (at, letter) in word.char_indices() {
        columns += letter.width().unwrap_or(0);
        if columns > width && at > 0 {
            return at;
        }
    }
    word.len()
}

/// A text with spaces after it, up to so many columns.
pub(super) fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}
