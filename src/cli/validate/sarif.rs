//! Diagnostics as SARIF 2.1.0, the format of code scanning.

use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::{
    manifests::{Code, Diagnostic, Place, Severity},
    output,
};

/// The characters that a URI's path must escape.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The page that describes each code, in this repository.
const CODES_PAGE: &str = "docs/validation-codes.md";

/// One run with all diagnostics.
pub fn render(diagnostics: &[Diagnostic]) -> serde_json::Result<String> {
    // All of them: a result refers to its rule by the index.
    let rules = Code::all().map(|code| {
        let id = code.as_str();
        json!({
            "id": id,
            "shortDescription": {"text": code.meaning()},
            "help": {"text": format!("{} See {CODES_PAGE}#{id}", code.meaning())},
        })
    });
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "tsdp",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            }},
            // A span counts characters, not UTF-16 units.
            "columnKind": "unicodeCodePoints",
            "results": diagnostics.iter().map(result).collect::<Vec<_>>(),
        }],
    });
    output::json(&document)
}

fn result(diagnostic: &Diagnostic) -> Value {
    let at = match &diagnostic.place {
        Some(place) => location(place),
        None => json!({"physicalLocation": {"artifactLocation": {"uri": uri(&diagnostic.file)}}}),
    };
    let mut result = json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": Code::all().position(|code| code == diagnostic.code),
        "level": match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": {"text": message(diagnostic)},
        "locations": [at],
    });
    result["properties"] = json!({"problem": diagnostic.text.problem});
    if let Some(help) = &diagnostic.text.help {
        result["properties"]["help"] = json!(help);
    }
    if !diagnostic.related.is_empty() {
        let related = diagnostic.related.iter().enumerate().map(|(id, related)| {
            let mut location = location(&related.place);
            location["id"] = json!(id);
            location["message"] = json!({"text": related.message});
            location
        });
        result["relatedLocations"] = related.collect();
    }
    result
}

/// Both the problem and the help, as viewers show nothing else.
fn message(diagnostic: &Diagnostic) -> String {
    if diagnostic.field.steps().is_empty() {
        return diagnostic.text.to_string();
    }
    format!("{}: {}", diagnostic.field, diagnostic.text)
}

fn location(place: &Place) -> Value {
    let span = place.span;
    let mut region = json!({"startLine": span.start.line, "startColumn": span.start.column});
    // In SARIF an empty region means an insertion: give only the start of such a place.
    if !span.is_empty() {
        region["endLine"] = json!(span.end.line);
        region["endColumn"] = json!(span.end.column);
    }
    json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(&place.source.name)},
        "region": region,
    }})
}

/// A relative path stays relative to the root of the repository, where CI runs the command.
fn uri(file: &str) -> String {
    if file == "-" {
        return "stdin".to_owned();
    }
    let path = utf8_percent_encode(file.strip_prefix("./").unwrap_or(file), ESCAPED);
    if Path::new(file).is_absolute() {
        format!("file://{path}")
    } else {
        path.to_string()
    }
}
