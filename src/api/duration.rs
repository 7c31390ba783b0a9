//! Durations as Kubernetes writes them: `90s`, `1m`, `1h30m`.

use std::time::Duration;

use crate::model::Refused;

/// Parses hours, minutes and seconds, in that order, each at most once.
///
/// Accepts less than Go's `time.ParseDuration` (no fractions, no milliseconds), as a shorter spelling
/// of the same interval always exists.
pub(super) fn parse(text: &str) -> Result<Duration, Refused> {
    whole_seconds(text).map(Duration::from_secs).ok_or_else(|| {
        Refused(format!(
            "'{text}' is not a valid duration: write hours, minutes and seconds, such as 30s, 1m or 1h30m"
        ))
    })
}

fn whole_seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    // In this order only: in `1m1h`, the part before the h is `1m1`.
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            if !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Also refuses a unit without a number, as an empty string does not parse.
            let part = number.parse::<u64>().ok()?.checked_mul(length)?;
            seconds = seconds.checked_add(part)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_minutes_and_seconds_are_read() {
        let cases = [
            ("30s", 30),
            ("1m", 60),
            ("1h30m", 5400),
            ("1h5s", 3605),
            ("90s", 90),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn invalid_duration_is_refused_with_an_example() {
        let bad = [
            "", "1", "m", "1.5h", "30s1m", "-1m", "+1m", "1m ", "500ms", "1d",
        ];
        for text in bad {
            let refused = parse(text).unwrap_err();
            assert!(refused.0.contains("such as 30s"), "{text}: {refused}");
        }
        assert!(parse("99999999999999999999h").is_err());
        assert!(parse("9999999999999999999h").is_err());
    }
}
