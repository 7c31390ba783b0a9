//! Untrusted text for people: devices choose their own names, and the API's messages are its own.

/// Untrusted text as one line of a terminal, a log, an Event, a comment or a page. Escapes control characters,
/// line breaks (those of YAML 1.1 too) and characters that change the direction of a line.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unprintable(letter) {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Whether a character of untrusted text must be escaped.
pub(crate) fn is_unprintable(letter: char) -> bool {
    let changes_direction = matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    // No YAML may contain the last two.
    let marks_bytes = matches!(letter, '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    letter.is_control() || changes_direction || marks_bytes
}
