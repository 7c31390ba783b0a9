//! Diagnostics for people, as a compiler prints them.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::cli::manifests::{Diagnostic, Place, Severity};

/// All diagnostics, each with its line.
pub fn render(diagnostics: &[Diagnostic], colored: bool) -> String {
    let renderer = if colored {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&report(diagnostic)));
        text.push_str("\n\n");
    }
    text
}

fn report(diagnostic: &Diagnostic) -> Vec<Group<'_>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(diagnostic.text.problem.as_str())
        .id(diagnostic.code.as_str());
    let mut first = match &diagnostic.place {
        Some(place) => title.element(snippet(place)),
        None => title.element(Origin::path(diagnostic.file.as_str())),
    };
    if let Some(subject) = subject(diagnostic) {
        first = first.element(Level::NOTE.no_name().message(subject));
    }
    if let Some(help) = &diagnostic.text.help {
        first = first.element(Level::HELP.message(help.as_str()));
    }
    let related = diagnostic.related.iter().map(|related| {
        Level::NOTE
            .secondary_title(related.message.as_str())
            .element(snippet(&related.place))
    });
    [first].into_iter().chain(related).collect()
}

/// The object and the field.
fn subject(diagnostic: &Diagnostic) -> Option<String> {
    let object = diagnostic.object.as_ref()?;
    if diagnostic.field.steps().is_empty() {
        return Some(object.clone());
    }
    Some(format!("{object}, {}", diagnostic.field))
}

/// The line of a place, with the place underlined. Of several lines it shows the first.
fn snippet(place: &Place) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let start = place.span.start;
    let line = place.source.line(start.line).unwrap_or_default();
    let offset = |column: usize| {
        // The library counts bytes, and a span counts characters.
        let mut ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
        ends.nth(column - 1).unwrap_or(line.len())
    };
    let from = offset(start.column);
    let to = if place.span.end.line == start.line {
        offset(place.span.end.column)
    } else {
        line.trim_end().len()
    };
    Snippet::source(line)
        .line_start(start.line)
        .path(place.source.name.as_str())
        // The start can lie behind the last letter, on a line that ends in blanks.
        .annotation(AnnotationKind::Primary.span(from..to.max(from)))
}
