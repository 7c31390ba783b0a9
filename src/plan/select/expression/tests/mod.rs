mod bounds;

use cel::{Context, Program};
use proptest::prelude::*;
use serde_json::json;

use super::{Expression, fields::FIELDS};
use crate::model::Device;

fn device() -> Device {
    Device {
        hostname: "FRA-1".to_owned(),
        client_version: "1.96.2".to_owned(),
        tags: ["tag:a", "tag:b"].map(|tag| tag.parse().unwrap()).into(),
        created: Some("2026-01-05T08:00:00.5Z".parse().unwrap()),
        ..crate::plan::tests::scenes::plain_device()
    }
}

fn parse(text: &str) -> Result<Expression, String> {
    text.parse()
        .map_err(|error: super::ExpressionError| error.to_string())
}

#[test]
fn expression_holds_for_matching_devices() {
    for (text, expected) in [
        ("device.clientVersion.startsWith('1.9')", true),
        (r"device.clientVersion.matches(r'^1\.(9\d|\d{3,})\.')", true),
        ("device.hostname.lowerAscii().endsWith(\"-1\")", true),
        ("device.hostname.contains('fra')", false),
        ("'tag:a' in device.tags && !('tag:c' in device.tags)", true),
        ("device.os in ['macOS', 'linux']", true),
        (
            "size(device.tags) >= 2 && device.hostname.size() == 5",
            true,
        ),
        ("device.isEphemeral || device.updateAvailable", false),
        ("!!!device.isEphemeral", true),
        ("device.tags == ['tag:a', 'tag:b']", true),
        ("device.tags != []", true),
        ("device.created > '2026-01-01T00:00:00Z'", true),
        ("device.created == '2026-01-05T08:00:00Z'", true),
        ("has(device.lastSeen) && device.lastSeen < '2026'", false),
        // As in CEL, one part can decide despite an error of another.
        ("device.lastSeen < '2026' || device.os == 'linux'", true),
        ("device.lastSeen < '2026' && device.os == 'windows'", false),
        (
            "device.os == 'linux' ? device.tags.size() == 2 : false",
            true,
        ),
        ("(device.isEphemeral ? 'a' : 'b') == 'b' // end\n", true),
        ("-1 < (true ? 3 : 4) && has(device.os)", true),
        ("'it\\'s' == \"it's\" && 'ä'.size() == 1", true),
    ] {
        let expression = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.holds(&device()).ok(), Some(expected), "{text}");
    }
}

#[test]
fn absent_field_is_an_error_with_its_position() {
    let expression = parse("device.os == 'linux' &&\n  device.lastSeen < '2026'").unwrap();
    assert_eq!(
        expression.holds(&device()).unwrap_err().to_string(),
        "line 2, column 10, at «lastSeen < '2026'»: device.lastSeen is absent: test \
        has(device.lastSeen) first"
    );
}

#[test]
fn invalid_expression_is_refused_with_its_position_and_a_fix() {
    for (text, reported) in [
        ("", "line 1, column 1, at the end: the expression is empty"),
        (
            "device.hostnme == 'fra'",
            "line 1, column 8, at «hostnme == 'fra'»: there is no such field: write one of nodeId, name, hostname",
        ),
        (
            "device.os ==\n 'linux' &&",
            "line 2, column 12, at the end: expected a value, but the expression ends",
        ),
        (
            "device.authorized",
            "column 8, at «authorized»: policies change authorized, so",
        ),
        (
            "device.os",
            "column 1, at «device.os»: expected a condition (a boolean), found a string",
        ),
        (
            "device.tags.all(t, t == 'a')",
            "at «all(t, t == 'a')»: all iterates over a list, which is not supported",
        ),
        (
            "device.tags.exists(t, t.startsWith('tag:'))",
            "exists iterates over a list",
        ),
        (
            "device.os == 3",
            "at «== 3»: this operator cannot compare a string with an integer",
        ),
        (
            "device.tags.startsWith('tag')",
            "at «device.tags.startsWith('…»: startsWith: expected a string, found a list",
        ),
        (
            "device.os.startsWith(true)",
            "at «true)»: startsWith: expected a string, found a boolean",
        ),
        (
            "device.os in 'linux'",
            "in: expected a string in a list, found a string in a string",
        ),
        ("device.os + 'x' == 'y'", "arithmetic is not supported"),
        (
            "device.tags[0] == 'tag:a'",
            "at «[0] == 'tag:a'»: a list has no index",
        ),
        (
            "timestamp(device.created) < now()",
            "at «timestamp(device.created…»: unknown function timestamp",
        ),
        (
            "os == 'linux'",
            "column 1, at «os == 'linux'»: unknown word 'os': write a field as device.FIELD",
        ),
        ("device.os == 'linux", "at «'linux»: the string has no end"),
        ("device.os == '\\d'", r"at «\d'»: unknown escape"),
        (
            "device.os.matches('(')",
            "invalid regular expression: unclosed group",
        ),
        (
            "device.os.matches('(a{200}){200}')",
            "the pattern is too large",
        ),
        (
            "device.os.matches(device.name)",
            "matches: expected a string in quotes",
        ),
        ("1.5 < 2", "a number must be an integer"),
        ("1 < 2 < 3", "at «< 3»: comparisons cannot be chained"),
        (
            "device.os == 'a' ? 1 : 'b'",
            "both values of ? : must have the same type: found an integer and a string",
        ),
        ("true && device.os", "at «device.os»: expected a condition"),
        ("device.os == 'linux' device", "expected an operator"),
        ("device.os == «linux»", "unexpected character"),
        (
            "(((((((((((((((((((((((((true)))))))))))))))))))))))))",
            "nested more than 24 levels deep",
        ),
    ] {
        let error = parse(text).map(|_| ()).unwrap_err();
        assert!(error.contains(reported), "{text}: {error}");
    }
    let long = format!("device.os == '{}'", "x".repeat(500));
    let error = parse(&long).unwrap_err();
    assert!(
        error.contains("found 515 characters, expected at most 512"),
        "{error}"
    );
}

#[test]
fn documentation_lists_the_fields() {
    let page = include_str!("../../../../../docs/select-devices.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `device."));
    let reported: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let fields: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(reported, fields);
}

#[test]
fn examples_of_the_documentation_are_valid() {
    let page = include_str!("../../../../../docs/select-devices.md");
    let table = page
        .split("| what can be written | example |\n|---|---|\n")
        .nth(1)
        .unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut read = 0;
    for row in rows {
        let row = row.replace("\\|", "OR");
        let examples = row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2);
        for example in examples {
            let example = example.replace("OR", "|");
            parse(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
            read += 1;
        }
    }
    assert!(read >= 10, "{read}");
}

/// The result of another CEL implementation; `None` if it fails.
fn oracle(text: &str, device: &Device) -> Option<bool> {
    let mut fields = json!({
        "nodeId": device.node_id.to_string(), "name": device.name, "hostname": device.hostname,
        "user": device.user, "os": device.os, "clientVersion": device.client_version,
        "tags": device.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "isEphemeral": device.ephemeral, "updateAvailable": device.update_available,
    });
    for (name, time) in [
        ("created", device.created),
        ("expires", device.expires),
        ("lastSeen", device.last_seen),
    ] {
        if let Some(time) = time {
            fields[name] = format!("{time:.0}").into();
        }
    }
    let mut context = Context::default();
    context.add_variable("device", fields).ok()?;
    match Program::compile(text).ok()?.execute(&context).ok()? {
        cel::Value::Bool(value) => Some(value),
        _ => None,
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("device.hostname".to_owned()),
        Just("device.os".to_owned()),
        Just("device.created".to_owned()),
        "'[a-bFR1-]{0,3}'",
        Just("'linux'".to_owned()),
        Just("(device.isEphemeral ? device.os : 'FRA-1')".to_owned()),
    ]
}

/// Conditions that both implementations know.
fn condition() -> impl Strategy<Value = String> {
    let how = || prop_oneof!["==", "!=", "<", "<=", ">", ">="].prop_map(String::from);
    let leaf = prop_oneof![
        (text(), how(), text()).prop_map(|(a, how, b)| format!("{a} {how} {b}")),
        (text(), "startsWith|endsWith|contains", text())
            .prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
        (text(), text()).prop_map(|(a, b)| format!("{a} in [{b}, 'FRA-1']")),
        text().prop_map(|a| format!("{a} in device.tags")),
        ("-?[0-3]", how()).prop_map(|(n, how)| format!("size(device.tags) {how} {n}")),
        text().prop_map(|a| format!("size({a}) > 4")),
        Just("device.isEphemeral".to_owned()),
        Just("has(device.lastSeen)".to_owned()),
        Just("has(device.created)".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} || {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.prop_map(|a| format!("({a})")),
        ]
    })
}

/// Input that could break a parser.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[(]{1,40}|[\\[]{1,40}|!{1,40}|-{1,40}|[)]{1,10}|[\\]]{1,10}",
        "true\\?|true\\?true:|true:|true&&|true\\|\\||1<|1==|'a' in ",
        "has\\(|size\\(|size\\(\\[|device\\.|device\\.os|device\\.tags|\\.size\\(\\)|\\.lowerAscii\\(\\)|\\.startsWith\\(",
        "device\\.os\\.matches\\('[(\\[{a|*+?)\\]}9]{0,30}'\\)",
        "[\\PC\n]{0,10}",
        "'[^']{0,5}'|[0-9]{1,25}|\\\\",
    ];
    let repeated = (piece, 1..60_usize).prop_map(|(piece, times)| piece.repeat(times));
    proptest::collection::vec(repeated, 1..12)
        .prop_map(|pieces| pieces.concat().chars().take(512).collect())
}

/// A quarter of the stack of a worker thread, although the frames of a debug build are larger.
const STACK: usize = 512 << 10;

fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(STACK);
    thread.spawn(work).unwrap().join().unwrap()
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(512))]

    #[test]
    fn accepted_expression_means_the_same_as_in_cel(text in condition(), ephemeral: bool, seen: bool, created: bool) {
        prop_assume!(text.len() <= 512);
        let mut device = device();
        device.ephemeral = ephemeral;
        device.last_seen = seen.then_some(jiff::Timestamp::UNIX_EPOCH);
        device.created = device.created.filter(|_| created);
        let ours = parse(&text).unwrap().holds(&device).ok();
        prop_assert_eq!(ours, oracle(&text, &device), "{}", text);
    }

    #[test]
    fn hostile_input_does_not_use_up_the_stack(text in hostile()) {
        on_a_small_stack(move || {
            if let Ok(expression) = text.parse::<Expression>() {
                let _ = expression.holds(&device());
            }
        });
    }
}

#[test]
fn deepest_nesting_of_each_kind_does_not_use_up_the_stack() {
    let nested = |open: &str, middle: &str, close: &str| {
        let shapes =
            (1..=256).map(|depth| format!("{}{middle}{}", open.repeat(depth), close.repeat(depth)));
        shapes
            .filter(|text| text.chars().count() <= 512)
            .collect::<Vec<_>>()
    };
    let shapes = [
        nested("(", "true", ")"),
        nested("!", "true", ""),
        nested("-", "1", " < 2"),
        nested("[", "'a'", "]"),
        nested("true?", "true", ":true"),
        nested("true?true:", "true", ""),
        nested("true||", "true", ""),
        nested("true&&", "true", ""),
        nested("size([", "'a'", "])"),
        nested("'a'.startsWith(", "'a'", ")"),
        nested("", "device.os", ".lowerAscii()"),
        nested("(true==", "true", ")"),
        nested("!(", "true", ")"),
        nested("(", "device.isEphemeral", "||true)"),
    ];
    let accepted = on_a_small_stack(move || {
        let texts = shapes.iter().flatten();
        let parsed = texts.filter_map(|text| text.parse::<Expression>().ok());
        parsed
            .map(|expression| u32::from(expression.holds(&device()).is_ok()))
            .sum::<u32>()
    });
    assert!(accepted > 500, "{accepted}");
}
