//! Faults for programs.

use serde_json::{Value, json};

use super::Verdict;
use crate::cli::{
    manifests::{Fault, Place, Severity},
    output,
};

/// One object with everything.
pub fn render(verdict: &Verdict) -> serde_json::Result<String> {
    let manifests = &verdict.manifests;
    let document = json!({
        "valid": verdict.valid(),
        "files": manifests.files,
        "objects": manifests.found,
        "otherObjects": manifests.others,
        "errors": verdict.count(Severity::Error),
        "warnings": verdict.count(Severity::Warning),
        "faults": verdict.faults.iter().map(fault).collect::<Vec<_>>(),
    });
    output::json(&document)
}

fn fault(fault: &Fault) -> Value {
    let mut value = json!({
        "severity": severity(fault.severity),
        "code": fault.code.as_str(),
        "message": fault.message,
        "file": fault.file,
    });
    if let Some(at) = &fault.place {
        merge(&mut value, place(at));
    }
    if let Some(object) = &fault.object {
        value["object"] = json!(object);
        value["field"] = json!(fault.field.to_string());
    }
    if !fault.related.is_empty() {
        let related = fault.related.iter().map(|related| {
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
