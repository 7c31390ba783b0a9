mod properties;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::*;

fn read_text(text: &str) -> (Manifests, Vec<Diagnostic>) {
    let source = Arc::new(Source::new("a.yaml", text));
    let mut reading = objects::Reading::new("default", Vec::new());
    reading.take(&source);
    reading.finish(1)
}

fn messages(text: &str) -> Vec<String> {
    let (_, diagnostics) = read_text(text);
    diagnostics.iter().map(ToString::to_string).collect()
}

const POLICY: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: router}
spec:
  device:
    hostname: fra-router
  tags:
    - tag:router
    - tag:fra
  postureAttributes:
    custom:tier: {string: gold}
";

fn line_and_column(document: &Document, path: &str) -> (usize, usize) {
    let start = document.place(&FieldPath::parse(path)).span.start;
    (start.line, start.column)
}

#[test]
fn a_field_is_located_in_its_file() {
    let text = format!("# a comment\n{{apiVersion: v1, kind: Other}}\n---\n{POLICY}");
    let (manifests, diagnostics) = read_text(&text);
    assert_eq!(diagnostics, []);
    assert_eq!(manifests.others, 1);
    let document = &manifests.policies[0].document;
    for (path, place) in [
        ("kind", (5, 7)),
        ("metadata.name", (6, 18)),
        ("spec.device.hostname", (9, 15)),
        ("spec.tags[1]", (12, 7)),
        // A list or map is located by its key.
        ("spec.tags", (10, 3)),
        ("spec", (7, 1)),
        ("spec.postureAttributes[custom:tier].string", (14, 27)),
        // A missing field is located by its parent.
        ("spec.device.nodeId", (8, 3)),
        ("spec.name", (7, 1)),
    ] {
        assert_eq!(line_and_column(document, path), place, "{path}");
    }
}

#[test]
fn an_object_without_a_namespace_gets_the_given_one() {
    let (manifests, _) = read_text(POLICY);
    let policy = &manifests.policies[0];
    assert_eq!(policy.object.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(
        policy.document.title(),
        "TailscaleDevicePolicy default/router"
    );
}

#[test]
fn json_is_read_with_places() {
    let text = "{\n\t\"apiVersion\": \"tailnet.dev/v1alpha1\", \"kind\": \"TailscaleTailnet\",\n\t\
                \"metadata\": {\"annotations\": {\"a\": \"\\ud83d\\ude00\"}, \"name\": \"lab\"},\n\
                \"spec\": {\"credentialsSecret\": {\"name\": \"s\"}}}\n{\"apiVersion\": \"v1\", \"kind\": \"Other\"}";
    let (manifests, diagnostics) = read_text(text);
    assert_eq!(diagnostics, []);
    let tailnet = &manifests.tailnets[0];
    assert_eq!(tailnet.object.metadata.name.as_deref(), Some("lab"));
    let annotations = tailnet.object.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["a"], "😀");
    assert_eq!(line_and_column(&tailnet.document, "metadata.name"), (3, 61));
    assert_eq!(manifests.others, 1);
}

#[test]
fn the_items_of_lists_are_objects() {
    let indented = POLICY.replace('\n', "\n    ");
    let bare = indented.replace(
        "apiVersion: tailnet.dev/v1alpha1\n    kind: TailscaleDevicePolicy\n    ",
        "",
    );
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  - {indented}");
    let own = format!(
        "apiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicyList\nitems:\n  - {bare}"
    );
    for text in [list, own] {
        let (manifests, diagnostics) = read_text(&text);
        assert_eq!(diagnostics, [], "{text}");
        assert_eq!(manifests.policies.len(), 1, "{text}");
    }
}

#[test]
fn fields_from_anchors_and_merges_are_located_where_they_are_written() {
    let merged = "metadata: {name: router, labels: &it {team: net}, annotations: {<<: *it}}";
    let text = POLICY.replace("metadata: {name: router}", merged);
    let (manifests, diagnostics) = read_text(&text);
    assert_eq!(diagnostics, []);
    let document = &manifests.policies[0].document;
    let place = (3, 45);
    assert_eq!(
        line_and_column(document, "metadata.annotations[team]"),
        place
    );
}

#[test]
fn syntax_errors_are_reported_with_their_place() {
    for (text, diagnostic) in [
        ("a: [1\nb: 2\n", "a.yaml:2:"),
        ("a:\n\tb: 2\n", "a.yaml:2:"),
        (
            "a: 1\n--- b\n",
            "a.yaml:2:1: found 'b' after ---, where kubectl accepts only a comment",
        ),
        (
            "a: 1\n...\nb: 2\n",
            "a.yaml:3:1: kubectl does not read anything after ...",
        ),
        (
            "x: 1\napiVersion: v1\nkind: Other\nx: 2\n",
            "a.yaml:4:1: the key 'x' also exists in line 1",
        ),
        ("a: .nan\n", "a.yaml:1:4: '.nan': JSON has no such number"),
        (
            "a: &x [*x]\n",
            "a.yaml:1:8: the alias is inside the value that it refers to",
        ),
        ("a: *nobody\n", "a.yaml:1:"),
        ("~: 1\n", "a.yaml:1:1: a key is missing"),
        (
            "%YAML 1.2\n---\napiVersion: v1\nkind: Other\n",
            "a.yaml:2:1: ",
        ),
        (
            "apiVersion: tailnet.dev/v1\nkind: TailscaleTailnet\n",
            "a.yaml:1:13: apiVersion: TailscaleTailnet does not exist in 'tailnet.dev/v1'",
        ),
    ] {
        let message = messages(text);
        assert_eq!(message.len(), 1, "{text}: {message:?}");
        assert!(message[0].starts_with(diagnostic), "{text}: {message:?}");
    }
}

#[test]
fn case_counts_in_the_domain_of_a_label_and_not_in_that_of_an_annotation() {
    let tailnet = |metadata: &str| {
        messages(&format!(
            "apiVersion: tailnet.dev/v1alpha1\nkind: TailscaleTailnet\n\
             metadata: {{name: lab, {metadata}: {{Example.com/Team: net}}}}\n\
             spec: {{credentialsSecret: {{name: lab}}}}\n"
        ))
    };
    assert_eq!(tailnet("annotations"), [""; 0]);
    let label = tailnet("labels");
    assert_eq!(label.len(), 1, "{label:?}");
    assert!(
        label[0].contains("'Example.com/Team' is not a valid key"),
        "{label:?}"
    );
}

#[test]
fn empty_documents_are_ignored() {
    for text in ["", "---\n", "# only this\n", "---\n---\n# more\n", "null\n"] {
        let (manifests, diagnostics) = read_text(text);
        assert_eq!(diagnostics, [], "{text}");
        assert_eq!(
            (manifests.others, manifests.policies.len()),
            (0, 0),
            "{text}"
        );
    }
}

#[test]
fn aliases_that_expand_exponentially_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let alias = format!("*a{}", i - 1);
        let all = [alias.as_str(); 10].join(", ");
        writeln!(text, "a{i}: &a{i} [{all}]").unwrap();
    }
    assert!(messages(&text)[0].contains("more than 400000 values"));
}

/// Metadata that servers write, as `kubectl get -o yaml` shows it, some of it with wrong types.
const WRITTEN_BY_SERVERS: &str = "\
metadata:
  name: router
  namespace: default
  labels: {team: network}
  annotations: {tailnet.dev/approve: \"node:n2,plan:3f2a9c0b7d41e856\", note: kept}
  uid: 0b5c8f1e-1111-2222-3333-444455556666
  generation: 7
  resourceVersion: \"42\"
  creationTimestamp: \"2020-01-01T00:00:00Z\"
  deletionTimestamp: \"2020-01-02T00:00:00Z\"
  deletionGracePeriodSeconds: 0
  finalizers: [tailnet.dev/clear]
  ownerReferences: [{apiVersion: v1, kind: Node, name: a, uid: b}]
  managedFields: [{manager: tsdp, operation: Update}]
  selfLink: /a
";

#[test]
fn fields_that_servers_write_are_ignored_in_a_file() {
    let declared = "metadata: {name: router, namespace: default, labels: {team: network}, \
                    annotations: {note: kept}}\n";
    let plain = POLICY.replace("metadata: {name: router}\n", declared);
    let copied = POLICY.replace("metadata: {name: router}\n", WRITTEN_BY_SERVERS);
    let expected = &read_text(&plain).0.policies[0].object;
    let status = "status: {nodeId: n2, ownedAttributes: [custom:x], observedGeneration: 7, \
                  heldPlan: {hash: 3f2a9c0b7d41e856, changes: 1, devices: 1}}\n";
    for status in [status, "status: {nodeId: {not: text}}\n", "status: 5\n", ""] {
        let text = format!("{copied}{status}");
        let indented = text.trim_end().replace('\n', "\n    ");
        let list = format!("apiVersion: v1\nkind: List\nitems:\n  - {indented}\n");
        for text in [text, list] {
            let (manifests, errors) = read_text(&text);
            assert_eq!(errors, [], "{text}");
            assert_eq!(manifests.policies[0].object, *expected, "{text}");
        }
    }
}

#[test]
fn the_status_and_the_approvals_of_a_tailnet_are_ignored_in_a_file() {
    let tailnet = "apiVersion: tailnet.dev/v1alpha1\nkind: TailscaleTailnet\nmetadata: {name: default}\n\
                   spec: {credentialsSecret: {name: tailscale}}\n";
    let expected = &read_text(tailnet).0.tailnets[0].object;
    let copied = tailnet.replace(
        "metadata: {name: default}",
        "metadata: {name: default, annotations: {tailnet.dev/approve: \"plan:3f2a9c0b7d41e856\"}}",
    );
    let copied = format!(
        "{copied}status: {{recentChanges: [{{since: \"2026-01-01T00:00:00Z\", devices: 99}}]}}\n"
    );
    let (manifests, errors) = read_text(&copied);
    assert_eq!(errors, []);
    let mut object = manifests.tailnets[0].object.clone();
    assert_eq!(object.metadata.annotations.take(), Some(BTreeMap::new()));
    assert_eq!(object, *expected);
}

#[test]
fn the_time_to_read_grows_with_the_size_and_not_with_its_square() {
    const MANY: usize = 100_000;
    let started = std::time::Instant::now();
    let documents = "a: 1\n---\n".repeat(MANY);
    assert_eq!(split::documents(&documents).unwrap().len(), MANY);

    let mut map = String::new();
    for number in 0..MANY {
        writeln!(map, "key-of-some-length-{number}: 1").unwrap();
    }
    let document = split::documents(&map).unwrap()[0];
    let read = yaml::read(&document).unwrap();
    assert_eq!(read.root.unwrap().entries().len(), MANY);

    let source = Source::new("a.yaml", map);
    let lines = (1..=MANY).filter_map(|number| source.line(number));
    assert_eq!(lines.map(str::len).sum::<usize>() + MANY, source.text.len());

    let mut input = input::Input::default();
    for number in 0..MANY {
        input.add(
            format!("a/file/of/a/folder/{number}.yaml"),
            Ok(String::new()),
        );
    }
    // Far less than a part takes that is quadratic.
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
}
