//! `tsdp validate` as a process.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{text, tsdp};

const BAD: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: fra-router, namespace: network}
spec:
  device: {hostname: fra-router}
  tag: [\"tag:router\"]
  enabledRoutes:
    - 10.0.0.1/16
  postureAttributes:
    custom:tier: {string: on}
";

const GOOD: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: ber-router}
spec: {device: {hostname: ber-router}, exitNode: true}
";

const TAILNET: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleTailnet
metadata: {name: default}
spec: {credentialsSecret: {name: tailscale}, allowedPolicies: [{}]}
";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn validate(folder: &Path, args: &[&str]) -> Output {
    tsdp(folder, &[&["validate"], args].concat(), "")
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn errors_are_shown_as_a_compiler_shows_them() {
    let folder = folder(&[("bad.yaml", BAD)]);
    let output = validate(folder.path(), &["-f", "bad.yaml"]);
    assert_eq!(status(&output), 1);
    insta::assert_snapshot!(text(&output.stdout), @r#"
error[unknown-field]: unknown field
 --> bad.yaml:6:3
  |
6 |   tag: ["tag:router"]
  |   ^^^
  |
  = TailscaleDevicePolicy network/fra-router, spec.tag
  = help: did you mean tags?

error[host-bits]: '10.0.0.1/16' has host bits
 --> bad.yaml:8:7
  |
8 |     - 10.0.0.1/16
  |       ^^^^^^^^^^^
  |
  = TailscaleDevicePolicy network/fra-router, spec.enabledRoutes[0]
  = help: write 10.0.0.0/16

error[wrong-type]: expected a string, found on, which kubectl reads as true
  --> bad.yaml:10:27
   |
10 |     custom:tier: {string: on}
   |                           ^^
   |
   = TailscaleDevicePolicy network/fra-router, spec.postureAttributes[custom:tier].string
   = help: write "on"
"#);
    assert_eq!(
        text(&output.stderr),
        "not valid: 3 errors (1 object in 1 file)\n"
    );
}

#[test]
fn color_is_shown_when_requested() {
    let folder = folder(&[("bad.yaml", &BAD.replace("  tag: [\"tag:router\"]\n", ""))]);
    let colored = validate(folder.path(), &["-f", "bad.yaml", "--color", "always"]);
    insta::assert_snapshot!(text(&colored.stdout).replace('\u{1b}', "␛"), @r#"
␛[1m␛[91merror[host-bits]␛[0m␛[1m: '10.0.0.1/16' has host bits␛[0m
 ␛[1m␛[94m--> ␛[0mbad.yaml:7:7
  ␛[1m␛[94m|␛[0m
␛[1m␛[94m7␛[0m ␛[1m␛[94m|␛[0m     - 10.0.0.1/16
  ␛[1m␛[94m|␛[0m       ␛[1m␛[91m^^^^^^^^^^^␛[0m
  ␛[1m␛[94m|␛[0m
  ␛[1m␛[94m= ␛[0mTailscaleDevicePolicy network/fra-router, spec.enabledRoutes[0]
  ␛[1m␛[94m= ␛[0m␛[1mhelp␛[0m: write 10.0.0.0/16

␛[1m␛[91merror[wrong-type]␛[0m␛[1m: expected a string, found on, which kubectl reads as true␛[0m
 ␛[1m␛[94m--> ␛[0mbad.yaml:9:27
  ␛[1m␛[94m|␛[0m
␛[1m␛[94m9␛[0m ␛[1m␛[94m|␛[0m     custom:tier: {string: on}
  ␛[1m␛[94m|␛[0m                           ␛[1m␛[91m^^␛[0m
  ␛[1m␛[94m|␛[0m
  ␛[1m␛[94m= ␛[0mTailscaleDevicePolicy network/fra-router, spec.postureAttributes[custom:tier].string
  ␛[1m␛[94m= ␛[0m␛[1mhelp␛[0m: write "on"
"#);
    let plain = validate(folder.path(), &["-f", "bad.yaml"]);
    assert!(!text(&plain.stdout).contains('\u{1b}'));
}

#[test]
fn valid_manifests_are_valid_in_folders_files_and_the_standard_input() {
    let folder = folder(&[
        ("all/deeper/one.yml", GOOD),
        (
            "all/two.json",
            "{\"apiVersion\": \"v1\", \"kind\": \"Other\"}",
        ),
        (
            "all/tailnet.yaml",
            &format!("{TAILNET}---\napiVersion: v1\nkind: Other\n"),
        ),
        // Not read: hidden files, and files without the suffix of a manifest.
        ("all/.git/bad.yaml", BAD),
        ("all/notes.txt", BAD),
    ]);
    for args in [
        &["-f", "all"][..],
        &["all"],
        &["-f", "all", "-f", "all/tailnet.yaml"],
    ] {
        let output = validate(folder.path(), args);
        assert_eq!((status(&output), text(&output.stdout).as_str()), (0, ""));
        let message = text(&output.stderr);
        let totals = "valid (2 objects in 3 files; ignored 2 objects of other kinds)\n";
        assert_eq!(message, totals, "{args:?}");
    }
    let output = tsdp(folder.path(), &["validate", "-f", "-"], GOOD);
    assert_eq!(text(&output.stderr), "valid (1 object in 1 file)\n");
    let output = tsdp(folder.path(), &["validate", "-f", "-"], "# nothing\n");
    assert_eq!(
        text(&output.stderr),
        "valid (no object of tailnet.dev in 1 file)\n"
    );
}

#[test]
fn everything_in_the_repository_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = validate(
        root,
        &[
            "-f",
            "deploy/examples",
            "-f",
            "deploy/connect",
            "-f",
            "crds",
        ],
    );
    let message = (text(&output.stdout), text(&output.stderr));
    assert_eq!(status(&output), 0, "{message:?}");
}

#[test]
fn unreadable_files_are_diagnostics_like_any_other() {
    let folder = folder(&[
        ("bad.yaml", BAD),
        ("open.yaml", "a: [\n"),
        ("good.yaml", GOOD),
    ]);
    fs::write(folder.path().join("bytes.yaml"), b"a: \xff\n").unwrap();
    let output = validate(
        folder.path(),
        &["-f", ".", "-f", "absent.yaml", "-o", "json"],
    );
    assert_eq!(status(&output), 1);
    let message: Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostics = message["diagnostics"].as_array().unwrap();
    let reported: Vec<String> = diagnostics
        .iter()
        .map(|it| {
            format!(
                "{}:{}: {}",
                it["file"].as_str().unwrap(),
                it["line"],
                it["code"]
            )
        })
        .collect();
    assert_eq!(
        reported,
        [
            "./bad.yaml:6: \"unknown-field\"",
            "./bad.yaml:8: \"host-bits\"",
            "./bad.yaml:10: \"wrong-type\"",
            "./bytes.yaml:null: \"not-yaml\"",
            "./open.yaml:1: \"syntax\"",
            "absent.yaml:null: \"unreadable\"",
        ]
    );
    let absent = &diagnostics.last().unwrap()["message"];
    assert!(
        absent.as_str().unwrap().contains("No such file"),
        "{absent}"
    );
}

#[test]
fn json_has_positions_and_fields() {
    let folder = folder(&[("bad.yaml", BAD)]);
    let output = validate(folder.path(), &["bad.yaml", "-o", "json"]);
    insta::assert_snapshot!(text(&output.stdout), @r#"
{
  "diagnostics": [
    {
      "code": "unknown-field",
      "column": 3,
      "endColumn": 6,
      "endLine": 6,
      "field": "spec.tag",
      "file": "bad.yaml",
      "help": "did you mean tags?",
      "line": 6,
      "message": "unknown field",
      "object": "TailscaleDevicePolicy network/fra-router",
      "severity": "error"
    },
    {
      "code": "host-bits",
      "column": 7,
      "endColumn": 18,
      "endLine": 8,
      "field": "spec.enabledRoutes[0]",
      "file": "bad.yaml",
      "help": "write 10.0.0.0/16",
      "line": 8,
      "message": "'10.0.0.1/16' has host bits",
      "object": "TailscaleDevicePolicy network/fra-router",
      "severity": "error"
    },
    {
      "code": "wrong-type",
      "column": 27,
      "endColumn": 29,
      "endLine": 10,
      "field": "spec.postureAttributes[custom:tier].string",
      "file": "bad.yaml",
      "help": "write \"on\"",
      "line": 10,
      "message": "expected a string, found on, which kubectl reads as true",
      "object": "TailscaleDevicePolicy network/fra-router",
      "severity": "error"
    }
  ],
  "errors": 3,
  "files": 1,
  "objects": 1,
  "otherObjects": 0,
  "valid": false,
  "warnings": 0
}
"#);
}

#[test]
fn workflow_commands_annotate_the_lines() {
    let folder = folder(&[("a,b/100%.yaml", BAD)]);
    let output = validate(folder.path(), &["-f", "./a,b", "-o", "github"]);
    insta::assert_snapshot!(text(&output.stdout), @r#"
::error file=a%2Cb/100%25.yaml,line=6,col=3,endLine=6,endColumn=5,title=unknown-field::spec.tag: unknown field%0Ahelp: did you mean tags?
::error file=a%2Cb/100%25.yaml,line=8,col=7,endLine=8,endColumn=17,title=host-bits::spec.enabledRoutes[0]: '10.0.0.1/16' has host bits%0Ahelp: write 10.0.0.0/16
::error file=a%2Cb/100%25.yaml,line=10,col=27,endLine=10,endColumn=28,title=wrong-type::spec.postureAttributes[custom:tier].string: expected a string, found on, which kubectl reads as true%0Ahelp: write "on"
"#);
    // The standard input is no file to annotate.
    let output = tsdp(folder.path(), &["validate", "-f", "-", "-o", "github"], BAD);
    let message = text(&output.stdout);
    assert!(
        message.starts_with("::error title=unknown-field::spec.tag: "),
        "{message}"
    );
}

#[test]
fn sarif_has_what_the_format_requires() {
    let twice = format!("{GOOD}---\n{GOOD}");
    let folder = folder(&[("a b/bad.yaml", BAD), ("twice.yaml", &twice)]);
    let output = validate(folder.path(), &[".", "absent", "-o", "sarif"]);
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    // SARIF 2.1.0 §3.13: version and runs; §3.14: tool.driver.name; §3.27: message, and ruleIndex points
    // into rules; §3.29: physicalLocation; §3.30: a region counts from 1.
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().contains("sarif-2.1.0"));
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "tsdp");
    let rules = driver["rules"].as_array().unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/validation-codes.md");
    let page = fs::read_to_string(page).unwrap();
    for rule in rules {
        let code = rule["id"].as_str().unwrap();
        assert!(
            page.contains(&format!("\n## {code}\n")),
            "docs/validation-codes.md lacks {code}"
        );
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 5);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(["error", "warning"].contains(&result["level"].as_str().unwrap()));
        let problem = result["properties"]["problem"].as_str().unwrap();
        let shown = result["message"]["text"].as_str().unwrap();
        assert!(shown.contains(problem), "{shown}");
        let physical = &result["locations"][0]["physicalLocation"];
        let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
        assert!(!uri.contains(' ') && !uri.starts_with("./"), "{uri}");
        if let Some(region) = physical.get("region") {
            assert!(region["startLine"].as_u64().unwrap() >= 1);
            assert!(region["startColumn"].as_u64().unwrap() >= 1);
        }
    }
    let place = |number: usize| {
        let physical = &results[number]["locations"][0]["physicalLocation"];
        let uri = physical["artifactLocation"]["uri"]
            .as_str()
            .unwrap()
            .to_owned();
        (uri, physical["region"]["startLine"].as_u64())
    };
    assert_eq!(place(0), ("a%20b/bad.yaml".to_owned(), Some(6)));
    assert_eq!(place(3), ("twice.yaml".to_owned(), Some(8)));
    assert_eq!(place(4), ("absent".to_owned(), None));
    let related = &results[3]["relatedLocations"][0];
    assert_eq!(related["physicalLocation"]["region"]["startLine"], 3);
    assert!(related["message"]["text"].is_string());
}

#[test]
fn an_object_declared_twice_is_refused_across_files() {
    let named = GOOD.replace(
        "{name: ber-router}",
        "{name: ber-router, namespace: network}",
    );
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", &named)]);
    assert_eq!(status(&validate(folder.path(), &["."])), 0);
    let output = validate(folder.path(), &[".", "-n", "network"]);
    assert_eq!(status(&output), 1);
    let message = text(&output.stdout);
    assert!(
        message.contains("the object also exists at ./a.yaml:3:18"),
        "{message}"
    );
}

#[test]
fn invalid_arguments_are_distinguished_from_invalid_manifests() {
    let folder = folder(&[]);
    for args in [&[][..], &["-f"], &["a", "-o", "xml"], &["a", "--unknown"]] {
        let output = validate(folder.path(), args);
        assert_eq!(text(&output.stdout), "", "{args:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{args:?}");
        assert_ne!(status(&output), 0, "{args:?}");
    }
}

#[test]
fn closed_pipe_is_not_an_error() {
    let many = BAD.replace("    - 10.0.0.1/16\n", &"    - 10.0.0.1/16\n".repeat(250));
    let folder = folder(&[("bad.yaml", &many)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args(["validate", "-f", "bad.yaml"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 10]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 1);
    let message = text(&output.stderr);
    assert!(
        message.starts_with("not valid: ") && message.lines().count() == 1,
        "{message}"
    );
}

const GUARDED: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleTailnet
metadata: {name: default}
spec:
  credentialsSecret: {name: tailscale}
  allowedPolicies:
    - namespaces: {names: [default]}
      fields: [tags]
    - namespaces: {names: [db], matchLabels: {team: db}}
";

#[test]
fn settings_that_guardrails_in_the_same_folder_deny_are_reported_with_their_position() {
    let folder = folder(&[("tailnet.yaml", GUARDED), ("router.yaml", GOOD)]);
    let output = validate(folder.path(), &["-f", "."]);
    assert_eq!(status(&output), 1);
    insta::assert_snapshot!(text(&output.stdout), @r"
error[not-allowed]: no rule of allowedPolicies allows this field
 --> ./router.yaml:4:50
  |
4 | spec: {device: {hostname: ber-router}, exitNode: true}
  |                                                  ^^^^
  |
  = TailscaleDevicePolicy default/ber-router, spec.exitNode
  = help: give the TailscaleTailnet a rule such as allowedPolicies: [{namespaces: {names: [default]}, fields: [exitNode]}]
note: the rules of the tailnet
 --> ./tailnet.yaml:6:3
  |
6 |   allowedPolicies:
  |   ^^^^^^^^^^^^^^^
");
    // If the labels of the namespace are unknown, it is a warning. If they match no rule, it is an error.
    let elsewhere = GOOD.replace("{name: ber-router}", "{name: ber-router, namespace: db}");
    fs::write(folder.path().join("router.yaml"), &elsewhere).unwrap();
    let output = validate(folder.path(), &["-f", "."]);
    assert_eq!(status(&output), 0);
    let message = text(&output.stdout);
    assert!(message.starts_with("warning[not-allowed]: "), "{message}");
    assert!(
        message.contains("add the Namespace to the manifests"),
        "{message}"
    );
    let namespace = |team| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: db, labels: {{team: {team}}}}}\n"
        )
    };
    fs::write(folder.path().join("namespace.yaml"), namespace("db")).unwrap();
    let output = validate(folder.path(), &["-f", "."]);
    assert_eq!((status(&output), text(&output.stdout).as_str()), (0, ""));
    fs::write(folder.path().join("namespace.yaml"), namespace("web")).unwrap();
    assert_eq!(status(&validate(folder.path(), &["-f", "."])), 1);
}

#[test]
fn without_rules_only_the_namespace_of_the_controller_is_allowed() {
    let plain = TAILNET.replace(", allowedPolicies: [{}]", "");
    let folder = folder(&[("tailnet.yaml", &plain), ("router.yaml", GOOD)]);
    assert_eq!(status(&validate(folder.path(), &["-f", "."])), 1);
    let args = ["-f", ".", "--controller-namespace", "default"];
    assert_eq!(status(&validate(folder.path(), &args)), 0);
    // Without a tailnet among the manifests there are no guardrails.
    fs::remove_file(folder.path().join("tailnet.yaml")).unwrap();
    assert_eq!(status(&validate(folder.path(), &["-f", "."])), 0);
}

#[test]
fn an_invalid_guardrail_is_reported_with_its_position() {
    let tailnet = TAILNET.replace(
        "allowedPolicies: [{}]",
        "protectedDevices: [{tags: ['tag:a'], expression: device.nothing}]",
    );
    let folder = folder(&[("tailnet.yaml", &tailnet)]);
    let output = validate(folder.path(), &["-f", "."]);
    assert_eq!(status(&output), 1);
    let message = text(&output.stdout);
    assert!(message.contains("spec.protectedDevices[0]"), "{message}");
}
