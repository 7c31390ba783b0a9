//! Tests that every expression stays within its bounds of memory and steps.

use proptest::prelude::*;

use super::super::{
    Expression,
    pattern::{MAX_BYTES, Pattern},
};
use crate::model::Device;

fn with_hostname(hostname: &str) -> Device {
    Device {
        hostname: hostname.to_owned(),
        ..crate::plan::tests::scenes::plain_device()
    }
}

fn refused(text: &str) -> String {
    let parsed = text.parse::<Expression>();
    parsed.map(|_| ()).unwrap_err().to_string()
}

/// Conditions with `||` between them.
fn any_of(condition: &str, count: usize) -> String {
    vec![condition; count].join("||")
}

#[test]
fn too_large_pattern_is_refused_before_it_is_compiled() {
    for (text, expected) in [
        (
            "device.os.matches('a{900}')",
            "line 1, column 19, at «'a{900}')»: the pattern is too large: found 901 letters with \
            repetitions written out, expected at most 256. Write fewer or smaller repetitions",
        ),
        (
            "device.os.matches('((a{9}){9}){9}')",
            "expected at most 256",
        ),
        (
            "device.os.matches('((((a{99}){99}){99}){99}){99}')",
            "too large",
        ),
        ("device.os.matches('(?i)[a-z]{300}')", "301 letters"),
        (
            r"device.os.matches(r'\w+')",
            "Write [0-9] instead of \\d and [a-zA-Z0-9_] instead of \\w",
        ),
        (
            &any_of("device.os.matches('a{90}')", 3),
            "the patterns of this expression are too large: found 273 letters",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn common_patterns_are_within_the_bounds() {
    for pattern in [
        r"^1\.(9\d|\d{3,})\.",
        r"^\d{1,3}\.\d{1,3}\.\d{1,3}",
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        "(?i)^(fra|ams|sin|nyc|lon)-(web|db|cache|router)-[0-9]{1,4}$",
        r"^[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9-.]+$",
    ] {
        let text = format!("device.hostname.matches(r'{pattern}')");
        let expression: Expression = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let (result, steps) = expression.evaluate(&with_hostname(&"x".repeat(63)));
        assert!(
            result.is_ok() && steps < Expression::MAX_STEPS / 2,
            "{pattern}: {steps}"
        );
    }
}

#[test]
fn pattern_is_compiled_on_first_match_shared_and_dropped_with_its_last_user() {
    let text = "first-matched-[0-9]{1,4}";
    let first = Pattern::parse(text).unwrap();
    let second = Pattern::parse(text).unwrap();
    assert_eq!(first.compiled_bytes(), None);
    assert_eq!(first.matches("first-matched-1"), Some(true));
    assert_eq!(second.compiled_bytes(), first.compiled_bytes());
    assert!(second.compiled_bytes().is_some());
    drop((first, second));
    assert_eq!(Pattern::parse(text).unwrap().compiled_bytes(), None);
}

#[test]
fn expression_with_too_many_steps_fails_with_its_position() {
    let heavy = "device.hostname.matches('x{200}y')";
    let text = format!("device.os == 'windows' || {heavy} || device.os == 'linux'");
    let expression: Expression = text.parse().unwrap();
    assert_eq!(expression.holds(&with_hostname("short")).ok(), Some(true));
    // The remaining parts are not evaluated.
    let error = expression
        .holds(&with_hostname(&"x".repeat(250)))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1, column 51, at «'x{200}y') || device.os …»: this takes more than 20000 steps for one \
        device: write shorter or fewer patterns"
    );
}

#[test]
fn many_large_reads_count_as_steps() {
    let tags: Vec<String> = (0..1000)
        .map(|i| format!("tag:{}-{i}", "x".repeat(40)))
        .collect();
    let device = Device {
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        ..crate::plan::tests::scenes::plain_device()
    };
    let expression: Expression = any_of("'b' in device.tags", 20).parse().unwrap();
    assert!(expression.holds(&device).is_err());
    let expression: Expression = any_of("'b' in device.tags", 2).parse().unwrap();
    assert_eq!(expression.holds(&device).ok(), Some(false));
}

/// Patterns with all the syntax of regular expressions.
fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ab-]{1,4}",
        Just("[a-z0-9]".to_owned()),
        Just("[^a]".to_owned()),
        Just(r"\d".to_owned()),
        Just(r"\pL".to_owned()),
        Just(r"\PN".to_owned()),
        Just("(?i:k)".to_owned()),
        Just(r"\b".to_owned()),
        Just(".".to_owned()),
        Just("^".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}{b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}|{b})")),
            (inner.clone(), 0..40_u32).prop_map(|(a, n)| format!("({a}){{{n}}}")),
            (inner.clone(), 0..5_u32, 0..40_u32)
                .prop_map(|(a, n, more)| format!("({a}){{{n},{}}}", n + more)),
            (inner.clone(), 0..40_u32).prop_map(|(a, n)| format!("({a}){{{n},}}")),
            inner.prop_map(|a| format!("(?:{a})*")),
        ]
    })
}

/// Each optional repetition of a class costs states of its own: the property found this one.
#[test]
fn optional_repetitions_of_a_class_fit_into_the_memory_of_a_pattern() {
    let pattern = Pattern::parse("((?:((?i:k)){2,34})*){7,}").unwrap();
    assert_eq!(pattern.matches(""), Some(true));
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(512))]

    #[test]
    fn accepted_pattern_compiles_within_its_bytes_and_matches_as_regex_does(
        text in pattern(), subject in "[abkK1 -]{0,12}"
    ) {
        let Ok(pattern) = Pattern::parse(&text) else {
            return Ok(());
        };
        let expected = regex::Regex::new(&text).unwrap().is_match(&subject);
        prop_assert_eq!(pattern.matches(&subject), Some(expected), "{}", text);
        let bytes = pattern.compiled_bytes().unwrap();
        prop_assert!(bytes <= MAX_BYTES, "{text}: {bytes}");
    }
}
