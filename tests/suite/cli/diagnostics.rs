//! Each mistake has a code, and says what to write instead; docs/validation-codes.md has an example of each.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{text, tsdp, validate_online};
use crate::{refusals::corpus, support::assert_generated};

const PAGE: &str = "docs/validation-codes.md";

/// The code that no manifest is known to produce: what the CRDs accept, the controller accepts too.
const UNKNOWN_CASE: &str = "invalid-spec";

/// A case of `diagnostics.yaml`.
#[derive(Deserialize)]
struct Case {
    code: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    text: Option<String>,
    spec: Option<String>,
    tailnet: Option<String>,
    help: Option<String>,
}

impl Case {
    fn all() -> Vec<Self> {
        serde_yaml::from_str(include_str!("diagnostics.yaml")).unwrap()
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut files = self.files.clone();
        let of_kind = |kind: &str, spec: &str| {
            format!(
                "apiVersion: tailnet.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n"
            )
        };
        let policy = self.spec.as_deref();
        let policy = policy.map(|spec| of_kind("TailscaleDevicePolicy", spec));
        let tailnet = self.tailnet.as_deref();
        let tailnet = tailnet.map(|spec| of_kind("TailscaleTailnet", spec));
        for text in self.text.iter().cloned().chain(policy).chain(tailnet) {
            files.insert("a.yaml".to_owned(), text);
        }
        diagnostics(&files, &[])
    }
}

#[derive(Debug, Deserialize)]
struct Diagnostic {
    code: String,
    severity: String,
    message: String,
    help: Option<String>,
    #[serde(default)]
    field: String,
    #[serde(default)]
    related: Vec<Value>,
}

fn diagnostics(files: &BTreeMap<String, String>, args: &[&str]) -> Vec<Diagnostic> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let all = [&["validate", "-f", ".", "-o", "json"], args].concat();
    reported(&tsdp(folder.path(), &all, "").stdout)
}

fn reported(json: &[u8]) -> Vec<Diagnostic> {
    let report: Value = serde_json::from_slice(json).unwrap();
    serde_json::from_value(report["diagnostics"].clone()).unwrap()
}

fn of_spec(spec: &str) -> Vec<Diagnostic> {
    let case = Case {
        code: String::new(),
        files: BTreeMap::new(),
        text: None,
        spec: Some(spec.to_owned()),
        tailnet: None,
        help: None,
    };
    case.diagnostics()
}

#[test]
fn each_mistake_has_its_code_and_says_what_to_write() {
    let mut faults = Vec::new();
    for (number, case) in Case::all().iter().enumerate() {
        let found = case.diagnostics();
        let is_expected =
            |it: &Diagnostic| it.code == case.code && (case.help.is_none() || it.help == case.help);
        // One mistake is one error.
        if !matches!(found.as_slice(), [only] if is_expected(only)) {
            faults.push(format!("case {number}, {}: {found:#?}", case.code));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_error_in_one_field_hides_none_in_another() {
    let found = of_spec(
        "{device: {hostname: 5}, authorized: false, tags: router, enabledRoutes: [10.0.0.1/16], keyExpiry: off, \
          expireKeyAt: 2027-01-01, priority: 2000, name: A, postureAttributes: {tier: gold, 'custom:a': {}}}",
    );
    let found: Vec<String> = found
        .iter()
        .map(|it| format!("{} {}", it.code, it.field))
        .collect();
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "attribute-namespace spec.postureAttributes",
            "host-bits spec.enabledRoutes[0]",
            "invalid-device-name spec.name",
            "invalid-time spec.expireKeyAt",
            "missing-allow-disruption spec.authorized",
            "missing-attribute-value spec.postureAttributes[custom:a]",
            "priority-out-of-range spec.priority",
            "wrong-type spec.device.hostname",
            "wrong-type spec.keyExpiry",
            "wrong-type spec.postureAttributes[tier]",
            "wrong-type spec.tags",
        ],
        "{found:#?}"
    );
    // Of a guardrail, an expression too, which no rule of the API server reads.
    let found = of_spec(
        "{deviceSelector: {tags: ['tag:a'], expression: device.nothing}, ipv4: 100.80.0.1, exitNode: 1}",
    );
    let codes: Vec<&str> = found.iter().map(|it| it.code.as_str()).collect();
    for code in ["invalid-expression", "same-for-many-devices", "wrong-type"] {
        assert!(codes.contains(&code), "{code}: {found:#?}");
    }
}

#[test]
fn a_rule_is_not_reported_because_of_another_mistake() {
    for spec in [
        // Whether the devices are cut off depends on what is intended.
        "{device: {hostname: a}, authorized: false, allowDisruption: [Deauthorise]}",
        "{device: {hostname: a}, authorized: false, allowDisruption: Deauthorize}",
        "{device: {hostname: a}, authorized: 'false'}",
        "{device: {hostname: a}, tags: [], ownership: {tags: Atleast}}",
        "{device: {hostname: a}, expireKeyAt: '2027-01-01T00:00:00Z', keyExpiry: disable}",
        // A device is named, if not rightly.
        "{device: {hostname: [a]}}",
        "{device: a}",
        "{deviceSelector: {hostnames: ['a'], trustClaims: 'yes'}}",
        "{device: {hostname: a}, postureAttributes: {'custom:a': {string: 5}}}",
    ] {
        let found = of_spec(spec);
        assert_eq!(found.len(), 1, "{spec}: {found:#?}");
        let code = found[0].code.as_str();
        assert!(
            ["wrong-type", "unknown-value"].contains(&code),
            "{spec}: {found:#?}"
        );
    }
}

#[test]
fn objects_of_one_name_are_one_error_with_all_places() {
    let policy = |settings: &str| {
        format!(
            "apiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\nmetadata: {{name: a}}\n\
             spec: {{device: {{hostname: a}}, {settings}}}\n"
        )
    };
    let files = [
        ("a.yaml", policy("exitNode: true")),
        ("b.yaml", policy("exitNode: false")),
        ("c.yaml", policy("keyExpiry: Enabled")),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text)).into();
    let found = diagnostics(&files, &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].code, "duplicate-object");
    let related: Vec<&Value> = found[0].related.iter().map(|it| &it["file"]).collect();
    assert_eq!(related, [&json!("./a.yaml"), &json!("./c.yaml")]);
}

/// An example of each code: those of the cases first, as they are chosen for it.
async fn examples() -> BTreeMap<String, Diagnostic> {
    let mut all: Vec<Diagnostic> = Case::all().iter().flat_map(Case::diagnostics).collect();
    for (kind, cases) in corpus() {
        let files = cases.specs().enumerate().map(|(number, (_, spec))| {
            let object = json!({
                "apiVersion": "tailnet.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": format!("case-{number}")},
                "spec": spec,
            });
            (format!("{number:03}.json"), object.to_string())
        });
        all.extend(diagnostics(&files.collect(), &[]));
    }
    all.extend(diagnostics(&BTreeMap::new(), &["-f", "absent.yaml"]));
    let tailnet = validate_online::tailnet().await;
    let online = [&validate_online::ONLINE[..], &["-o", "json"]].concat();
    all.extend(reported(tailnet.run(&online).await.ok().as_bytes()));
    let mut examples = BTreeMap::new();
    for diagnostic in all {
        examples
            .entry(diagnostic.code.clone())
            .or_insert(diagnostic);
    }
    examples
}

#[tokio::test]
async fn generated_page_of_the_codes_has_an_example_of_each() {
    let examples = examples().await;
    let sarif = tsdp(
        Path::new("."),
        &["validate", "-f", "-", "-o", "sarif"],
        "# nothing\n",
    );
    let log: Value = serde_json::from_str(&text(&sarif.stdout)).unwrap();
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array();
    let mut codes: Vec<(&str, &str)> = rules
        .unwrap()
        .iter()
        .map(|rule| {
            let meaning = rule["shortDescription"]["text"].as_str();
            (rule["id"].as_str().unwrap(), meaning.unwrap())
        })
        .collect();
    codes.sort_unstable();
    let mut page = "# Codes of validate\n\n\
         Every error and warning of [`tsdp validate`](validate.md) has a code, in `error[CODE]` and in the fields of \
         JSON, SARIF and\nGitHub annotations. Each code has a link of its own, for example \
         `validation-codes.md#host-bits`. Generated by `.ci/generate`.\n"
        .to_owned();
    for (code, meaning) in codes {
        let _ = write!(page, "\n## {code}\n\n{meaning}\n");
        if code == UNKNOWN_CASE {
            continue;
        }
        let example = examples.get(code);
        let example = example.unwrap_or_else(|| panic!("no test produces {code}"));
        let _ = write!(
            page,
            "\n```text\n{}[{code}]: {}\n",
            example.severity, example.message
        );
        if let Some(help) = &example.help {
            let _ = writeln!(page, "help: {help}");
        }
        page.push_str("```\n");
    }
    assert_generated(PAGE, &page);
}
