use std::fmt;

use jiff::SignedDuration;

/// How far the local clock is ahead of the API's clock, or behind it if negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew(pub SignedDuration);

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.abs().as_mins();
        let (count, unit) = match minutes {
            0..120 => (minutes, "minutes"),
            120..2_880 => (minutes / 60, "hours"),
            _ => (minutes / 1_440, "days"),
        };
        let side = if self.0.is_negative() {
            "behind"
        } else {
            "ahead of"
        };
        write!(
            f,
            "the clock of the machine that runs the controller is {count} {unit} {side} the Tailscale \
            API's: correct it. Until then the controller expires no key and deletes no device"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_reported_in_a_suitable_unit() {
        let reported = |minutes| ClockSkew(SignedDuration::from_mins(minutes)).to_string();
        assert!(
            reported(7).contains("is 7 minutes ahead of"),
            "{}",
            reported(7)
        );
        assert!(reported(-180).contains("is 3 hours behind the"));
        assert!(reported(14 * 24 * 60).contains("is 14 days ahead of"));
    }
}
