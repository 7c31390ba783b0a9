//! Diagnostics as workflow commands of GitHub Actions, which annotate the lines of a pull request.

use std::fmt::Write as _;

use crate::cli::manifests::{Diagnostic, Severity};

/// A line for each diagnostic.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let command = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let title = property(diagnostic.code.as_str());
        let mut message = match diagnostic.field.steps() {
            [] => diagnostic.text.problem.clone(),
            _ => format!("{}: {}", diagnostic.field, diagnostic.text.problem),
        };
        if let Some(help) = &diagnostic.text.help {
            // Writing to a string does not fail.
            let _ = write!(message, "\nhelp: {help}");
        }
        let message = data(&message);
        let _ = writeln!(
            text,
            "::{command} {}title={title}::{message}",
            place(diagnostic)
        );
    }
    text
}

/// The properties of the place, each followed by a comma. None for standard input.
fn place(diagnostic: &Diagnostic) -> String {
    if diagnostic.file == "-" {
        return String::new();
    }
    // GitHub compares paths with those of the repository, which do not begin with a dot.
    let file = diagnostic
        .file
        .strip_prefix("./")
        .unwrap_or(&diagnostic.file);
    let mut properties = format!("file={},", property(file));
    if let Some(place) = &diagnostic.place {
        let (start, end) = (place.span.start, place.span.end);
        let _ = write!(properties, "line={},col={},", start.line, start.column);
        if end.line == start.line && end.column > start.column {
            // GitHub's endColumn is inclusive, the span's end is not.
            let _ = write!(
                properties,
                "endLine={},endColumn={},",
                end.line,
                end.column - 1
            );
        }
    }
    properties
}

fn data(text: &str) -> String {
    // First, as the escapes below contain it.
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_would_end_a_command_are_escaped() {
        assert_eq!(data("50%\nnext:,"), "50%25%0Anext:,");
        assert_eq!(property("a:b,c%d\r"), "a%3Ab%2Cc%25d%0D");
    }
}
