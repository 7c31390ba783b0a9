//! Diagnostics as JSON, for programs.

use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::cli::{
    manifests::{Diagnostic, Place, Severity},
    output,
};

/// One object with the totals and all diagnostics.
pub fn render(outcome: &Outcome) -> serde_json::Result<String> {
    let manifests = &outcome.manifests;
    let document = json!({
        "valid": outcome.valid(),
        "files": manifests.files,
        "objects": manifests.found,
        "otherObjects": manifests.others,
        "errors": outcome.count(Severity::Error),
        "warnings": outcome.count(Severity::Warning),
        "diagnostics": outcome.diagnostics.iter().map(diagnostic).collect::<Vec<_>>(),
    });
    output::json(&document)
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    // Without a place for a folder that cannot be read.
    let mut value = json!({
        "severity": severity(diagnostic.severity),
        "code": diagnostic.code.as_str(),
        "message": diagnostic.text.problem,
        "file": diagnostic.file,
    });
    if let Some(help) = &diagnostic.text.help {
        value["help"] = json!(help);
    }
    if let Some(at) = &diagnostic.place {
        merge(&mut value, place(at));
    }
    // Without an object there is no field either.
    if let Some(object) = &diagnostic.object {
        value["object"] = json!(object);
        value["field"] = json!(diagnostic.field.to_string());
    }
    // Absent rather than empty, so that most diagnostics stay short.
    if !diagnostic.related.is_empty() {
        let related = diagnostic.related.iter().map(|related| {
            let mut value = json!({"message": related.message, "file": related.place.source.name});
            merge(&mut value, place(&related.place));
            value
        });
        value["related"] = related.collect();
    }
    value
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn place(place: &Place) -> Value {
    let span = place.span;
    json!({
        "line": span.start.line,
        "column": span.start.column,
        "endLine": span.end.line,
        "endColumn": span.end.column,
    })
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
