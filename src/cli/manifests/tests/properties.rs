//! Properties of random manifests: a policy with valid values is accepted, and each field is found in its
//! line.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use proptest::{collection, option, prelude::*};
use serde_json::{Map, Value, json};

use super::super::*;

/// Specs that the API server accepts.
fn spec() -> impl Strategy<Value = Value> {
    let tag = || "tag:[A-Za-z][A-Za-z0-9-]{0,5}".prop_map(Value::from);
    let tags = || collection::btree_set("tag:[a-z][a-z0-9-]{0,5}", 1..4).prop_map(|all| json!(all));
    let device = prop_oneof![
        "[A-Za-z0-9]{1,20}".prop_map(|id| json!({"nodeId": id})),
        "[0-9]{1,20}".prop_map(|id| json!({"id": id})),
        "[a-z0-9](-?[a-z0-9]){0,5}(\\.ts\\.net)?".prop_map(|name| json!({"name": name})),
        // With strings that YAML takes for another type without quotes.
        prop_oneof![
            "[ -~]{1,20}",
            Just("on".to_owned()),
            Just("0777".to_owned())
        ]
        .prop_map(|name| json!({"hostname": name})),
    ];
    let device = (device, option::of(tags())).prop_map(|(mut device, tags)| {
        if let Some(tags) = tags {
            device["tags"] = tags;
        }
        device
    });
    let value = prop_oneof![
        "[A-Za-z0-9_.]{0,50}".prop_map(|text| json!({"string": text})),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(|it| json!({"integer": it})),
        any::<bool>().prop_map(|flag| json!({"boolean": flag})),
    ];
    let route = (any::<u32>(), 1..=32_u8).prop_map(|(addr, bits)| {
        let net = ipnet::Ipv4Net::new(addr.into(), bits).unwrap();
        net.trunc().to_string()
    });
    let optional = (
        option::of(collection::vec(tag(), 1..2).prop_map(Value::from)),
        option::of(collection::btree_set(route, 0..4).prop_map(|all| json!(all))),
        option::of(collection::btree_map("custom:[a-z0-9_:]{1,9}", value, 0..4)),
        option::of(any::<bool>()),
        option::of(-1000..=1000_i32),
        option::of(prop_oneof![Just("Enabled"), Just("Disabled")]),
    );
    (device, optional).prop_map(
        |(device, (tags, routes, attributes, exit, priority, expiry))| {
            let fields = [
                ("device", Some(device)),
                ("tags", tags),
                ("enabledRoutes", routes),
                ("postureAttributes", attributes.map(|all| json!(all))),
                ("exitNode", exit.map(Value::from)),
                ("priority", priority.map(Value::from)),
                ("keyExpiry", expiry.map(Value::from)),
            ];
            let given = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(given.collect::<Map<_, _>>())
        },
    )
}

/// Block YAML, and the line of each field.
#[derive(Default)]
struct Written {
    text: String,
    lines: BTreeMap<String, usize>,
}

impl Written {
    fn object(spec: &Value) -> Self {
        let mut written = Self::default();
        let object = json!({
            "apiVersion": "tailnet.dev/v1alpha1",
            "kind": "TailscaleDevicePolicy",
            "metadata": {"name": "any"},
            "spec": spec,
        });
        written.value(&object, 0, &FieldPath::ROOT);
        written
    }

    /// Writes the value of a field, with a comment and an empty line here and there.
    fn value(&mut self, value: &Value, depth: usize, path: &FieldPath) {
        let entries: Vec<(String, FieldPath, &Value)> = match value {
            Value::Object(entries) => {
                let below = |key: &String| match path.to_string().as_str() {
                    "spec.postureAttributes" => path.key(key),
                    _ => path.field(key),
                };
                entries
                    .iter()
                    .map(|(key, value)| (format!("{}:", json!(key)), below(key), value))
                    .collect()
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, value)| ("-".to_owned(), path.index(i), value))
                .collect(),
            _ => unreachable!("written beside its key"),
        };
        for (head, path, value) in entries {
            if path.to_string().len() % 3 == 0 {
                self.text.push_str("# what follows\n\n");
            }
            let line = self.text.lines().count() + 1;
            self.lines.insert(path.to_string(), line);
            let indent = "  ".repeat(depth);
            let holds = match value {
                Value::Object(entries) => !entries.is_empty(),
                Value::Array(items) => !items.is_empty(),
                _ => false,
            };
            if holds {
                writeln!(self.text, "{indent}{head}").unwrap();
                self.value(value, depth + 1, &path);
            } else {
                writeln!(self.text, "{indent}{head} {value}").unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_policy_with_valid_values_is_accepted_and_its_fields_are_located(spec in spec()) {
        let written = Written::object(&spec);
        let source = Arc::new(Source::new("any", written.text));
        let (manifests, diagnostics) = read_sources(&[Arc::clone(&source)], "default", Vec::new());
        prop_assert_eq!(&diagnostics, &[], "{}", source.text);
        let policy = &manifests.policies[0];
        let read = serde_json::to_value(&policy.object.spec).unwrap();
        prop_assert_eq!(&read["device"], &spec["device"]);
        prop_assert_eq!(&read["postureAttributes"], &spec["postureAttributes"]);
        for (path, line) in &written.lines {
            let place = policy.document.place(&FieldPath::parse(path));
            prop_assert_eq!(place.span.start.line, *line, "{} in\n{}", path, source.text);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z\\-:&*!<>{}\\[\\],'\"#%|?~0-9 \n\t\u{e4}]{0,60}") {
        let source = Arc::new(Source::new("any", text));
        let (_, diagnostics) = read_sources(&[Arc::clone(&source)], "default", Vec::new());
        for diagnostic in diagnostics {
            let start = diagnostic.place.unwrap().span.start;
            prop_assert!(start.line <= source.text.lines().count() + 1);
            prop_assert!(start.column >= 1);
        }
    }
}
