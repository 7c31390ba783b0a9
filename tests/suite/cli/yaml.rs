//! Manifests are read as kubectl reads them.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tsdp::{cli::manifests, local::Binaries};

/// The lines before the compared field.
const HEAD: &str = "apiVersion: v1\nkind: Any\nmetadata: {name: any}\n";

#[tokio::test]
async fn values_are_read_as_kubectl_reads_them() {
    let kubectl = kubectl().await;
    let written = [
        // Words and numbers of YAML 1.1.
        "[y, Y, n, N, yes, No, on, OFF, true, False, TRUE, yEs, ~, null, NULL, nULL]",
        "[0777, 0888, 0o17, 0x1F, 0xfg, 0b11, 0b12, -0b11, 1_000, 1__0, _1, +1, -0, 00, 0_, 1e3, 1E-2]",
        "[1., .5, -.5, +.5, ., 1.5e3, 1e400, 3.0, 1.0e21, 9007199254740993, 18446744073709551615]",
        "[-9223372036854775808, -9223372036854775809, 9223372036854775808, 18446744073709551616]",
        "[12:30:45, 190:20:30.15, 2027-01-01, 2027-01-01T00:00:00Z, '2027', 1.2.3, 100.80.0.1]",
        // Quotes and blocks.
        r#"["y", 'no', "0777", "\x41\u00e9\t", 'it''s', "", '']"#,
        "\n  - |\n    two\n    lines\n  - >-\n    folded\n    text\n  - plain\n    text\n  - \"a \\\n    b\"",
        // Keys that are not strings.
        "{1: a, y: b, 1.5: c, 0x10: d, 'no': e}",
        // Tags.
        "[!!str 5, ! 5, !own 5, !!float 3, !!int 0x10, !!bool yes, !!null '', !!int '5']",
        // Anchors and merges, in their order.
        "{a: &a {x: 1, y: 2}, b: {<<: *a, x: 3}, c: {x: 3, <<: *a}, d: *a}",
        "{a: &a {x: 1}, b: &b {x: 2, z: 3}, c: {<<: [*a, *b]}}",
        // Nothing, comments, documents.
        "",
        "  # a comment",
        "1\n--- # more\n---\n# nothing\n---\n{kind: Any, apiVersion: v1, metadata: {name: b}, field: on}",
        "\n- a\n-   b\n-\n  - c",
        "{a: {}, b: [], 'c': \"\", ? d : e}",
        "{a: &a {x: 1}, b: {!!merge <<: *a}, c: {!!merge \"<<\": *a}, d: {! <<: *a}}",
        "{a: &a {x: 1}, b: {!!str <<: *a}, c: {!own <<: *a}, d: {!!merge x: *a}, e: !!merge a, f: <<}",
        // The break of a line in YAML 1.1.
        "\"a\u{85}b\"",
        "'a\u{85}\u{85}b'",
        "|\n  a\u{85}  b",
        "1 # x\u{85}other: 2",
        "\"a\u{feff}b\"",
        // Tabs.
        "1\n \t",
        "1\t",
        "\t1",
        "[1,\n\t2]",
        "\"a\n\tb\"",
        "1\n  \t# c",
        "\n  a: 1\n   \t\n  b: 2",
        "|\n  a\n  \t\n  b",
    ];
    for field in written {
        let text = format!("{HEAD}field: {field}\n");
        compare(&kubectl, &text);
    }
}

#[tokio::test]
async fn random_scalars_are_read_as_kubectl_reads_them() {
    let kubectl = kubectl().await;
    let alphabet = b"0123456789001122abefxoXOBENnyY+-._:TZ~";
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..10 {
        let mut text = format!("{HEAD}field:\n");
        for _ in 0..300 {
            let length = random.usize(1..9);
            let letters = (0..length).map(|_| char::from(*random.choice(alphabet).unwrap()));
            let scalar: String = letters.collect();
            // Skips scalars that would be a list or map, or that JSON cannot express.
            let other = scalar.ends_with(':') || scalar.bytes().all(|b| b == b'-');
            if !other && !scalar.to_lowercase().contains(".nan") {
                writeln!(text, "- {scalar}").unwrap();
            }
        }
        compare(&kubectl, &text);
    }
}

#[tokio::test]
async fn json_is_read_as_kubectl_reads_it() {
    let kubectl = kubectl().await;
    let field = json!({"a": [1, 3.0, 1.5, 1e3, "\u{1f600}\t\"", null, true, {}], "0777": "0777"});
    let object =
        json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}, "field": field});
    compare(&kubectl, &object.to_string());
    compare(&kubectl, &format!("{object:#}\n{object}{object}"));
    compare(&kubectl, &format!("{object}\n---\n{HEAD}field: 0777\n"));
    compare(&kubectl, &object.to_string().replace('{', "{\n\t"));
    let escapes = r#""\/ \u00e9 \ud83d\ude00 \ud83d \\ud83d \ude00\ud83d""#;
    compare(&kubectl, &object.to_string().replace("true", escapes));
    compare(
        &kubectl,
        "{apiVersion: v1, kind: Any, metadata: {name: any}, field: [on]}\n",
    );
}

#[tokio::test]
async fn yaml_that_kubectl_cannot_read_is_refused() {
    let kubectl = kubectl().await;
    for text in [
        "field: [1",
        "field: {a: b",
        "field:\n\ta: 1",
        "field: 'open",
        "field: *nobody",
        "field: .nan",
        "field: -.inf",
        "field: !!int a",
        "field: !!float y",
        "field: !!null 1",
        "field: {null: 1}",
        "field: {[a]: 1}",
        "field: &a [*a]",
        "field: {<<: 1}",
        "field: {<<: [1]}",
        "field: a: b",
        "field: @a",
        "field: `a",
        "field: 1\n--- other: 2",
        "field: \"\\z\"",
        "field: 1\n other: 2",
        // A tab at the start of a line that has nothing else, or only a comment.
        "field: 1\n\t",
        "field: 1\n\t\nother: 2",
        "field: 1\n\t# c",
        "field: 1 # c\n\t",
        "field:\n- a\n\t",
        "field:\n  a: 1\n \t\n  b: 2",
        "field:\n  a: 1\n  \t\n  b: 2",
        "field: \"1\"\n \t",
        "field: [1]\n\t",
        "field: [1]\n \t",
        "field: [1\n\t,2]",
        "field:\n  \t\n  a: 1",
        "field: a\n\t\n  b",
        "field: |\n  a\n\t\n  b",
        "field: |\n  a\n \t\n  b",
        // What only JSON or YAML 1.2 has.
        "field: \"a\\/b\"",
        "field: \"\\ud83d\\ude00\"",
        "field: 1\n---\n{\"field\": \"a\\/b\"}",
        // Characters.
        "field: a\u{85}b",
        "field: \"a\u{7f}b\"",
        "field: \"a\u{90}b\"",
        "field: \"a\u{1}b\"",
        "field: \"a\u{fffe}b\"",
        "# \u{7f}",
    ] {
        let text = format!("{HEAD}{text}\n");
        assert!(
            read_by_kubectl(&kubectl, &text).is_err(),
            "kubectl takes {text}"
        );
        assert!(manifests::values(&text).is_err(), "taken: {text}");
    }
}

#[tokio::test]
async fn mistakes_that_kubectl_silently_accepts_are_refused() {
    let kubectl = kubectl().await;
    for (text, message) in [
        ("field: {a: 1, a: 2}", "the key 'a' also exists in line 4"),
        (
            "field: 1\n...\nother: 2",
            "kubectl does not read anything after ...",
        ),
        ("field: !!binary aGk=", "tsdp does not read this tag"),
        (
            "field: \"a\u{2028}b\"",
            "found the character U+2028, which kubectl reads as the end of a line",
        ),
    ] {
        let text = format!("{HEAD}{text}\n");
        read_by_kubectl(&kubectl, &text).unwrap();
        let refused = manifests::values(&text).unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
}

async fn kubectl() -> std::path::PathBuf {
    Binaries::find_or_build().await.unwrap().kubectl
}

fn compare(kubectl: &Path, text: &str) {
    let theirs =
        read_by_kubectl(kubectl, text).unwrap_or_else(|message| panic!("{text}\n{message}"));
    let ours = manifests::values(text).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
    let field = |objects: &[Value]| -> Vec<Value> {
        objects
            .iter()
            .filter_map(|it| it.get("field").cloned())
            .collect()
    };
    let (ours, theirs) = (field(&ours), field(&theirs));
    assert_eq!(ours.len(), theirs.len(), "{text}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let each = ours.as_array().into_iter().flatten();
        let each = each.zip(theirs.as_array().into_iter().flatten());
        for (i, (ours, theirs)) in each.enumerate() {
            assert!(same(ours, theirs), "item {i}: {ours}, not {theirs}: {text}");
        }
        assert!(same(ours, theirs), "{ours}, not {theirs}: {text}");
    }
}

/// A float as large as 2^63 is printed as digits, as if it were an integer.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
        }
        (Value::Number(ours), Value::Number(theirs)) if ours.is_f64() => {
            ours.as_f64() == theirs.as_f64()
        }
        _ => ours == theirs,
    }
}

/// The objects as kubectl reads them. It prints them with an additional annotation, without a cluster.
fn read_by_kubectl(kubectl: &Path, text: &str) -> Result<Vec<Value>, String> {
    let mut child = Command::new(kubectl)
        .args(["annotate", "--local", "-f", "-", "-o", "json", "seen=yes"])
        .env("KUBECONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let objects = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    Ok(objects.collect::<Result<_, _>>().unwrap())
}
