//! Checks types, bounds, and required and unknown fields.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::{
    finding::Finding,
    hints,
    rules::Rules,
    shape::{choices, is_of_type, is_readable},
};
use crate::cli::manifests::{
    code::Code,
    path::{FieldPath, Step},
    text::Text,
    tree::{Data, Entry, Node},
    wording::example,
};
use crate::plan::Expression;

/// The fields that every object has besides those of its schema.
const COMMON: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Checks an object, with the CEL rules.
pub fn check(
    schema: &JSONSchemaProps,
    object: &Node,
    rules: &mut Rules,
    findings: &mut Vec<Finding>,
) {
    Checking {
        root: schema,
        rules,
        findings,
    }
    .value(schema, object, &FieldPath::ROOT);
}

struct Checking<'c> {
    root: &'c JSONSchemaProps,
    rules: &'c mut Rules,
    findings: &'c mut Vec<Finding>,
}

impl Checking<'_> {
    /// Checks a value. Returns whether it is sound: nothing in it is missing or unreadable.
    fn value(&mut self, schema: &JSONSchemaProps, node: &Node, path: &FieldPath) -> bool {
        if !is_of_type(schema, node) {
            self.add(Code::WrongType, path, hints::wrong_type(schema, node));
            return false;
        }
        let before = self.findings.len();
        let sound = match &node.data {
            // A schema without a type takes anything.
            _ if schema.type_.is_none() && schema.x_kubernetes_int_or_string.is_none() => true,
            Data::Map(entries) => self.object(schema, entries, path),
            Data::List(items) => self.list(schema, items, path),
            Data::Text(text) => self.text(schema, text, path),
            Data::Number(number) => self.number(schema, number.as_f64(), path),
            Data::Boolean(_) | Data::Null => true,
        };
        if is_readable(schema, node) {
            self.rules.check(schema, node, path, sound, self.findings);
        }
        // The controller's own parser, after the rules: one error for each mistake.
        if let (Some(text), true) = (node.text(), self.findings.len() == before) {
            self.expression(text, path);
        }
        sound
    }

    /// Parses an expression, which no rule of the API server can.
    fn expression(&mut self, text: &str, path: &FieldPath) {
        let [Step::Field(spec), .., Step::Field(last)] = path.steps() else {
            return;
        };
        if let ("spec", "expression", Err(error)) =
            (spec.as_str(), last.as_str(), text.parse::<Expression>())
        {
            self.add(
                Code::InvalidExpression,
                path,
                Text::split(&error.to_string()),
            );
        }
    }

    fn object(&mut self, schema: &JSONSchemaProps, entries: &[Entry], path: &FieldPath) -> bool {
        let mut sound = self.at_most(schema.max_properties, entries.len(), "entries", path);
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            for entry in entries {
                let key = path.key(&entry.key);
                // Not `&&`, which would stop at the first entry: all errors are reported at once.
                sound &= self.entry(values, &entry.value, &key);
            }
            return sound;
        }
        let empty = BTreeMap::new();
        let properties = schema.properties.as_ref().unwrap_or(&empty);
        for entry in entries {
            let field = path.field(&entry.key);
            let at_root = path.steps().is_empty();
            match properties.get(&entry.key) {
                // The controller writes it, and the API server ignores it in a manifest.
                Some(_) if at_root && entry.key == "status" => {}
                Some(schema) => sound &= self.entry(schema, &entry.value, &field),
                None if at_root && COMMON.contains(&entry.key.as_str()) => {}
                // An error, as kubectl validates strictly; the API server alone would drop the
                // field.
                None => self.unknown(&entry.key, properties, &field, at_root),
            }
        }
        for name in schema.required.iter().flatten() {
            if !entries
                .iter()
                .any(|entry| entry.key == *name && entry.value.data != Data::Null)
            {
                let help = match properties.get(name).and_then(example) {
                    Some(example) => format!("write it, for example {name}: {example}"),
                    None => "write it".to_owned(),
                };
                let text = Text::new(format!("{name} is missing")).help(help);
                self.add(Code::MissingField, &path.field(name), text);
                sound = false;
            }
        }
        sound
    }

    /// Checks an entry of a map. The API server drops an entry that is null.
    fn entry(&mut self, schema: &JSONSchemaProps, node: &Node, path: &FieldPath) -> bool {
        if node.data != Data::Null {
            return self.value(schema, node, path);
        }
        let empty = match schema.type_.as_deref() {
            Some("array") => ", or [] for an empty list",
            Some("object") => ", or {} for an empty map",
            _ => "",
        };
        let text = Text::new("the value is empty, which counts as if the field were absent")
            .help(format!("write a value{empty}, or leave the field out"));
        self.findings
            .push(Finding::warning(Code::EmptyValue, path.clone(), text));
        true
    }

    fn unknown(
        &mut self,
        name: &str,
        properties: &BTreeMap<String, JSONSchemaProps>,
        field: &FieldPath,
        at_root: bool,
    ) {
        let common = COMMON.iter().copied().filter(|_| at_root);
        let known: Vec<&str> = properties
            .keys()
            .map(String::as_str)
            .chain(common)
            .collect();
        let near = crate::model::nearest(name, known.iter().copied());
        // A single typo is more likely than a field of the same name elsewhere.
        let misspelled = near.filter(|near| strsim::damerau_levenshtein(name, near) == 1);
        let suggestion = match (misspelled, elsewhere(self.root, name)) {
            (None, Some(path)) => Some(path.to_string()),
            _ => near.map(str::to_owned),
        };
        let help = match suggestion {
            Some(suggestion) => format!("did you mean {suggestion}?"),
            None => format!("write one of {}", known.join(", ")),
        };
        self.add(
            Code::UnknownField,
            field,
            Text::new("unknown field").help(help),
        );
    }

    fn list(&mut self, schema: &JSONSchemaProps, items: &[Node], path: &FieldPath) -> bool {
        let mut sound = self.at_most(schema.max_items, items.len(), "items", path);
        if let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items {
            for (i, item) in items.iter().enumerate() {
                sound &= self.value(of, item, &path.index(i));
            }
        }
        sound
    }

    fn text(&mut self, schema: &JSONSchemaProps, text: &str, path: &FieldPath) -> bool {
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&text) {
            let problem = format!("found '{text}', expected {}", choices.join(" or "));
            let text = Text::new(problem).help(hints::one_of(text, &choices));
            self.add(Code::UnknownValue, path, text);
            return false;
        }
        // OpenAPI counts characters, not bytes.
        let length = text.chars().count();
        let sound = self.at_most(schema.max_length, length, "characters", path);
        if schema
            .min_length
            .is_some_and(|min| i64::try_from(length).is_ok_and(|it| it < min))
        {
            let text = Text::new("the value is empty").help("write a string");
            self.add(Code::OutOfBounds, path, text);
        }
        sound
    }

    fn number(&mut self, schema: &JSONSchemaProps, number: Option<f64>, path: &FieldPath) -> bool {
        let Some(number) = number else { return true };
        if schema.minimum.is_some_and(|min| number < min) {
            let min = schema.minimum.unwrap_or_default();
            self.add(
                Code::OutOfBounds,
                path,
                format!("found {number}, expected at least {min}"),
            );
        }
        if schema.maximum.is_some_and(|max| number > max) {
            let max = schema.maximum.unwrap_or_default();
            self.add(
                Code::OutOfBounds,
                path,
                format!("found {number}, expected at most {max}"),
            );
        }
        true
    }

    fn at_most(&mut self, max: Option<i64>, count: usize, what: &str, path: &FieldPath) -> bool {
        let within = max.is_none_or(|max| i64::try_from(count).is_ok_and(|count| count <= max));
        if let (false, Some(max)) = (within, max) {
            let message = format!("found {count} {what}, expected at most {max}");
            self.add(Code::OutOfBounds, path, message);
        }
        within
    }

    fn add(&mut self, code: Code, field: &FieldPath, text: impl Into<Text>) {
        self.findings
            .push(Finding::error(code, field.clone(), text));
    }
}

/// The path of the field with this name in the spec, if there is only one.
fn elsewhere(root: &JSONSchemaProps, name: &str) -> Option<FieldPath> {
    let mut found = Vec::new();
    let spec = root.properties.as_ref()?.get("spec")?;
    collect(spec, name, &FieldPath::ROOT.field("spec"), &mut found);
    // One of several would be a guess.
    <[FieldPath; 1]>::try_from(found).ok().map(|[only]| only)
}

fn collect(schema: &JSONSchemaProps, name: &str, path: &FieldPath, found: &mut Vec<FieldPath>) {
    for (key, below) in schema.properties.iter().flatten() {
        let field = path.field(key);
        collect(below, name, &field, found);
        if key == name {
            found.push(field);
        }
    }
}
