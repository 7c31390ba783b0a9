//! Faults as workflow commands of GitHub Actions: annotations of the lines in a pull request.

use std::fmt::Write as _;

use crate::cli::manifests::{Fault, Severity};

/// A line for each.
pub fn render(faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        let command = match fault.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let title = property(fault.code.as_str());
        let message = match fault.field.steps() {
            [] => data(&fault.message),
            _ => data(&format!("{}: {}", fault.field, fault.message)),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "::{command} {}title={title}::{message}", place(fault));
    }
    text
}

/// The properties of the place, each with a comma behind it; none for the standard input.
fn place(fault: &Fault) -> String {
    if fault.file == "-" {
        return String::new();
    }
    let file = fault.file.strip_prefix("./").unwrap_or(&fault.file);
    let mut properties = format!("file={},", property(file));
    if let Some(place) = &fault.place {
        let (start, end) = (place.span.start, place.span.end);
        let _ = write!(properties, "line={},col={},", start.line, start.column);
        if end.line == start.line && end.column > start.column {
            // The last column that is meant, not the one behind it.
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
    fn what_would_end_a_command_is_escaped() {
        assert_eq!(data("50%\nnext:,"), "50%25%0Anext:,");
        assert_eq!(property("a:b,c%d\r"), "a%3Ab%2Cc%25d%0D");
    }
}
