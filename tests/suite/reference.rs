//! The reference of all fields, docs/reference.md, is generated from the schema: the descriptions of
//! `kubectl explain`, on one page.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tsdp::api::schema;

use crate::support::assert_generated;

const PAGE: &str = "docs/reference.md";

/// What a description says: the meaning, what holds where the field is absent, and an example.
struct Explained<'a> {
    meaning: &'a str,
    absent: &'a str,
    example: &'a str,
}

fn explained(schema: &Value) -> Explained<'_> {
    let text = schema["description"].as_str().unwrap_or_default();
    let (text, example) = text.split_once("\nExample: ").unwrap_or((text, ""));
    // "Absent or empty: …" and "Absent: …"; rarely a sentence of general meaning follows.
    let (meaning, absent) = match text.find("Absent") {
        Some(at) => {
            let (meaning, rest) = text.split_at(at);
            (
                meaning.trim(),
                rest.split_once(": ").map_or(rest, |(_, rest)| rest),
            )
        }
        None => (text, ""),
    };
    Explained {
        meaning,
        absent: absent.trim_end_matches('.'),
        example,
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{}`", cell(text))
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
        return values.join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => "map".to_owned(),
        Some(name) => name.to_owned(),
        None if schema["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "any".to_owned(),
    }
}

/// A row for each field below `schema`, in the order of their paths.
fn rows(path: &str, schema: &Value, page: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let Explained {
            meaning,
            absent,
            example,
        } = explained(field);
        let row = [
            code(&path),
            cell(&type_of(field)),
            cell(meaning),
            cell(absent),
            code(example),
        ];
        let _ = writeln!(page, "| {} |", row.join(" | "));
        rows(&path, field, page);
        rows(&format!("{path}[]"), &field["items"], page);
        rows(&format!("{path}.KEY"), &field["additionalProperties"], page);
    }
}

fn schemas() -> impl Iterator<Item = (Value, Value)> {
    schema::definitions().into_iter().map(|definition| {
        let mut definition = json!(definition);
        let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        (definition["spec"]["names"].take(), schema)
    })
}

fn page() -> String {
    let mut page = "# Reference\n\nEvery field of every kind, generated from the schema: what \
                    `kubectl explain` says. `[]` stands for an entry of a list, `KEY` for a key of a \
                    map.\n"
        .to_owned();
    for (names, schema) in schemas() {
        let kind = names["kind"].as_str().unwrap();
        let short = names["shortNames"][0].as_str().unwrap();
        let _ = writeln!(
            page,
            "\n## {kind}\n\n{} Short name: `{short}`.",
            schema["description"].as_str().unwrap()
        );
        for part in ["spec", "status"] {
            let _ = writeln!(
                page,
                "\n### `{part}` of a {kind}\n\n| field | type | meaning | absent | example |\n|---|---|---|---|---|"
            );
            rows("", &schema["properties"][part], &mut page);
        }
    }
    page
}

#[test]
fn generated_reference_is_up_to_date() {
    assert_generated(PAGE, &page());
}

#[test]
fn each_field_of_each_spec_documents_its_absence_and_an_example() {
    let mut silent = Vec::new();
    for (names, schema) in schemas() {
        let fields = schema["properties"]["spec"]["properties"]
            .as_object()
            .unwrap();
        let required = schema["properties"]["spec"]["required"].as_array();
        for (name, field) in fields {
            let is_required = required.is_some_and(|all| all.contains(&json!(name)));
            let Explained {
                meaning,
                absent,
                example,
            } = explained(field);
            if meaning.is_empty() || example.is_empty() || (absent.is_empty() && !is_required) {
                silent.push(format!("{}.{name}", names["kind"].as_str().unwrap()));
            }
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}
