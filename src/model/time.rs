//! The one grammar of times: RFC 3339, in a manifest and in an answer of the API.

use jiff::{Timestamp, civil::DateTime, tz::Offset};

use super::Refused;

/// The last second that a [`Timestamp`] can hold: 9999-12-30T22:00:00Z.
const LAST: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// Parses a time, exactly as the rule in the CRD accepts it.
///
/// jiff's own parser accepts more than RFC 3339: a blank for the `T`, `+0100`, a leap second, the name of a
/// time zone. The last day of the year 9999, by which many a system means "never", is beyond the range of a
/// [`Timestamp`] and becomes its last second.
pub fn parse_time(text: &str) -> Result<Timestamp, Refused> {
    read(text).ok_or_else(|| {
        Refused(format!(
            "'{text}' is not a valid time: write one such as 2027-01-01T00:00:00Z"
        ))
    })
}

fn read(text: &str) -> Option<Timestamp> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.number(4)?;
    let month = rest.after(b"-")?;
    let day = rest.after(b"-")?;
    let hour = rest.after(b"Tt")?;
    let minute = rest.after(b":")?;
    let second = rest.after(b":")?;
    let nanosecond = rest.fraction()?;
    let offset = rest.offset()?;
    let [month, day, hour, minute, second] =
        [month, day, hour, minute, second].map(|part| i8::try_from(part).ok());
    let time = DateTime::new(year, month?, day?, hour?, minute?, second?, nanosecond);
    // The range of a DateTime begins before the year 0, so that only its end can be exceeded.
    let zoned = offset.to_timestamp(time.ok()?);
    Some(zoned.unwrap_or(LAST).min(LAST))
}

/// The bytes that are not parsed yet.
struct Rest<'t>(&'t [u8]);

impl Rest<'_> {
    /// Takes one of these bytes, if it is next.
    fn take(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        any.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// A number with this many digits.
    fn number(&mut self, digits: usize) -> Option<i16> {
        (0..digits).try_fold(0, |number: i16, _| {
            let digit = self.take(b"0123456789")?;
            number.checked_mul(10)?.checked_add(i16::from(digit - b'0'))
        })
    }

    /// A number with two digits after a separator.
    fn after(&mut self, separator: &[u8]) -> Option<i16> {
        self.take(separator)?;
        self.number(2)
    }

    /// The nanoseconds; further digits are dropped.
    fn fraction(&mut self) -> Option<i32> {
        if self.take(b".").is_none() {
            return Some(0);
        }
        let (mut nanoseconds, mut unit) = (0, 1_000_000_000);
        while let Some(digit) = self.take(b"0123456789") {
            unit /= 10;
            nanoseconds += unit * i32::from(digit - b'0');
        }
        // Still whole: no digit came after the point.
        (unit < 1_000_000_000).then_some(nanoseconds)
    }

    /// The offset from UTC, which ends the time.
    fn offset(&mut self) -> Option<Offset> {
        let offset = match self.take(b"Zz+-")? {
            b'Z' | b'z' => 0,
            sign => {
                let hours = self.number(2).filter(|hours| *hours < 24)?;
                let minutes = self.after(b":").filter(|minutes| *minutes < 60)?;
                let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
                if sign == b'-' { -seconds } else { seconds }
            }
        };
        let offset = Offset::from_seconds(offset).ok()?;
        self.0.is_empty().then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        parse_time(text).ok().map(|time| time.to_string())
    }

    #[test]
    fn times_of_rfc_3339_are_parsed() {
        for (text, expected) in [
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01t00:00:00.25z", "2027-01-01T00:00:00.25Z"),
            ("2027-01-01T00:00:00+01:30", "2026-12-31T22:30:00Z"),
            ("2027-01-01T00:00:00-23:59", "2027-01-01T23:59:00Z"),
            ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"),
            ("0000-01-01T00:00:00+23:59", "-000001-12-31T00:01:00Z"),
            // As Go does, instead of refusing or rounding what is below a nanosecond.
            (
                "2027-01-01T00:00:00.9999999999Z",
                "2027-01-01T00:00:00.999999999Z",
            ),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_last_day_of_the_year_9999_is_the_last_time_that_there_is() {
        for text in [
            "9999-12-30T22:00:00Z",
            "9999-12-30T22:00:00.5Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999-23:59",
        ] {
            assert_eq!(
                shown(text).as_deref(),
                Some("9999-12-30T22:00:00Z"),
                "{text}"
            );
        }
        assert_eq!(
            shown("9999-12-30T21:59:59Z").as_deref(),
            Some("9999-12-30T21:59:59Z")
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2027-01-01",
            "2027-01-01 00:00:00Z",
            "2027-01-01T00:00Z",
            "2027-01-01T00:00:00",
            "2027-01-01T00:00:00+0100",
            "2027-01-01T00:00:00+01",
            "2027-01-01T00:00:00+24:00",
            "2027-01-01T00:00:00+01:60",
            "2027-01-01T23:59:60Z",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:00:00Z[UTC]",
            "2027-01-01T00:00:00+01:00[Europe/Berlin]",
            "2027-01-01T00:00:00,5Z",
            "2027-01-01T00:00:00.Z",
            "2027-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2027-04-31T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-01-00T00:00:00Z",
            "+002027-01-01T00:00:00Z",
            "20270101T000000Z",
            " 2027-01-01T00:00:00Z",
            "2027-01-01T00:00:00Z\n",
            "２027-01-01T00:00:00Z",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
