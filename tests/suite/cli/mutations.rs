//! `tsdp validate` accepts a text if and only if `kubectl apply` does, whatever mistake is in it.

use std::path::Path;

use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::tsdp;
use crate::support::{Kubectl, control_plane};

const POLICY: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata:
  name: fra-router
  labels: {team: network, example.com/tier: \"1\"}
spec:
  device:
    hostname: \"fra-router\"
  tags:
  - tag:router
  - 'tag:fra'
  enabledRoutes: [10.0.0.0/16]
  postureAttributes:
    custom:tier: {string: gold}   # a comment
    custom:audited:
      boolean: true
      expiry: \"2030-01-01T00:00:00Z\"
  priority: 10
";

const TAILNET: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleTailnet
metadata: {name: default}
spec:
  credentialsSecret: {name: tailscale}
  maxChangedDevices: 10%
  allowedPolicies:
  - &rule
    namespaces: {names: [network]}
    fields:
      - tags
  - <<: *rule
    tags: [\"tag:*\"]
  pollInterval: >-
    1m
";

const JSON: &str = r#"{
  "apiVersion": "tailnet.dev/v1alpha1",
  "kind": "TailscaleDevicePolicy",
  "metadata": {"name": "nas", "annotations": {"note": "a\u00e9\ud83d\ude00"}},
  "spec": {"device": {"hostname": "nas"}, "exitNode": false, "tags": ["tag:db"]}
}
"#;

/// What a mutation writes into a text.
const PIECES: [&str; 44] = [
    "\t", "\n", "\n\t\n", "\n \t\n", " ", "  ", ":", ": ", "-", "- ", "{", "}", "[", "]", ",", "#",
    " # ", "'", "\"", "&a ", "*a", "<<: ", "!!str ", "!!merge ", "|", ">", "%", "@", "`", "~",
    "null", "\u{85}", "\u{7f}", "\u{fffe}", "\\", "\\/", "\n---\n", "0x1", "on", "1e3", "é", "A",
    "/", ".",
];

/// The codes of errors that kubectl does not have, on purpose: it would silently do something else.
const STRICTER: [&str; 3] = ["duplicate-key", "duplicate-object", "conflict"];
/// The same, for messages.
const STRICTER_MESSAGES: [&str; 2] = [
    "kubectl does not read anything after",
    "tsdp does not read this tag",
];
/// What kubectl says of texts without an object of tailnet.dev, which tsdp ignores on purpose.
const NOT_OURS: [&str; 2] = ["no objects passed to apply", "no matches for kind"];

/// A text with one mistake.
fn mutated(random: &mut fastrand::Rng) -> String {
    let text = [POLICY, TAILNET, JSON][random.usize(..3)];
    let mut letters: Vec<char> = text.chars().collect();
    let at = random.usize(..letters.len());
    let length = random.usize(1..4).min(letters.len() - at);
    let piece = PIECES[random.usize(..PIECES.len())].chars();
    match random.u8(..6) {
        0..=2 => drop(letters.splice(at..at, piece)),
        3 => drop(letters.splice(at..=at, piece)),
        4 => drop(letters.drain(at..at + length)),
        _ => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let (from, to) = (random.usize(..lines.len()), random.usize(..lines.len()));
            match random.u8(..3) {
                0 => lines.swap(from, to),
                1 => lines.insert(to, lines[from]),
                _ => drop(lines.remove(from)),
            }
            return lines.concat();
        }
    }
    letters.into_iter().collect()
}

/// The texts that the two were once found to judge in different ways.
fn known() -> Vec<String> {
    let spec = |end: &str| format!("{POLICY}{end}");
    let label = |label: &str| POLICY.replace("team: network", label);
    let host = |host: &str| POLICY.replace("\"fra-router\"\n  tags", &format!("{host}\n  tags"));
    let list = |items: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}",
            items.trim_end().replace('\n', "\n  ")
        )
    };
    vec![
        spec("\t\n"),
        spec("  \t\n"),
        spec("    \t\n"),
        spec("\t# a comment\n"),
        host("\"fra\\/router\""),
        JSON.replace("\"nas\"}", "\"na\\/s\"}"),
        format!("{JSON}text"),
        format!("{JSON}}}"),
        format!("{JSON}# a comment\n"),
        format!("{JSON}{POLICY}"),
        list(POLICY),
        list(&list(POLICY)),
        label("a: ~"),
        label("a:"),
        label("A/b: c"),
        label("a.B/c: d"),
        host("\"fra\u{85}router\""),
        host("fra\u{85}router"),
        host("fra # \u{85}other: 1"),
        TAILNET.replace("<<:", "!!merge <<:"),
        TAILNET.replace("<<:", "!!merge \"<<\":"),
        TAILNET.replace("<<:", "!!str <<:"),
        TAILNET.replace("<<:", "\"<<\":"),
    ]
}

#[tokio::test]
async fn validate_and_kubectl_accept_the_same_texts() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    kubectl.install_crds().await;

    let number = |name: &str, default| {
        let given = std::env::var(name).ok();
        given.map_or(default, |given| given.parse().unwrap())
    };
    // The same sample each time, as a difference that it finds must not fail another's commit.
    let mut random = fastrand::Rng::with_seed(number("TSDP_SEED", 1));
    let mut texts = known();
    texts.extend((0..number("TSDP_MUTATIONS", 60)).map(|_| mutated(&mut random)));
    let compared = texts.iter().map(|text| difference(&kubectl, text));
    let found: Vec<String> = stream::iter(compared)
        .buffer_unordered(4)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

async fn difference(kubectl: &Kubectl, text: &str) -> Option<String> {
    let args = ["apply", "--dry-run=server", "-f", "-"];
    let output = kubectl.run(&args, text).await;
    let theirs = String::from_utf8_lossy(&output.stderr);
    let ours = tsdp(Path::new("."), &["validate", "-o", "json", "-f", "-"], text);
    let report: Value = serde_json::from_slice(&ours.stdout).unwrap();
    let errors: Vec<&Value> = report["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["severity"] == "error")
        .collect();
    let is_stricter = |error: &&Value| {
        let message = error["message"].as_str().unwrap();
        STRICTER.iter().any(|code| error["code"] == *code)
            || STRICTER_MESSAGES.iter().any(|it| message.contains(it))
    };
    let is_as_intended = match (output.status.success(), errors.is_empty()) {
        (true, true) | (false, false) => true,
        (true, false) => errors.iter().all(is_stricter),
        (false, true) => NOT_OURS.iter().any(|it| theirs.contains(it)),
    };
    (!is_as_intended).then(|| format!("{text:?}\nkubectl: {theirs}\ntsdp: {errors:?}"))
}
