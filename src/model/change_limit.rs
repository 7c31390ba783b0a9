use std::{fmt, str::FromStr};

use super::Refused;

/// How many devices of a tailnet may be changed within an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeLimit {
    /// A number of devices.
    Devices(u32),
    /// A percentage of the tailnet's own devices; 100 is no limit.
    Percent(u8),
}

impl ChangeLimit {
    /// No limit.
    pub const NONE: Self = Self::Percent(100);
    /// A percentage of a small tailnet is at least this many devices.
    // 10 % of ten devices is one, and almost every policy would be held.
    const AT_LEAST: usize = 5;

    /// The number of devices, for a tailnet with `own` devices; `None`: no limit.
    #[must_use]
    pub fn devices(self, own: usize) -> Option<usize> {
        match self {
            Self::Devices(devices) => Some(usize::try_from(devices).unwrap_or(usize::MAX)),
            // `None` and not all devices: those that join within the hour would exceed it.
            Self::Percent(100..) => None,
            Self::Percent(percent) => {
                // Rounded down, as for a limit the smaller number is the safe one.
                Some((own.saturating_mul(percent.into()) / 100).max(Self::AT_LEAST))
            }
        }
    }
}

/// How many of `most` devices the policies of one namespace may change if others share the limit: a quarter
/// is left for those.
#[must_use]
pub const fn share_of_one_namespace(most: usize) -> usize {
    // In this order, so that a limit of 1 to 3 reserves nothing.
    most - most / 4
}

impl Default for ChangeLimit {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl fmt::Display for ChangeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devices(devices) => write!(f, "{devices}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for ChangeLimit {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let limit = match text.strip_suffix('%') {
            Some(percent) => whole(percent)
                .and_then(|percent| u8::try_from(percent).ok())
                .filter(|percent| *percent <= 100)
                .map(Self::Percent),
            None => whole(text).map(Self::Devices),
        };
        limit.ok_or_else(|| {
            Refused(format!(
                "'{text}' is not a valid limit: write a number of devices, such as 20, or a percentage from 1% \
                 to 100%, which is no limit"
            ))
        })
    }
}

/// A number above zero, without a sign or leading zeros.
fn whole(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    // Rust's parser would also accept `+20`.
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_of_the_tailnets_devices_is_at_least_five() {
        let devices = |text: &str, own| text.parse::<ChangeLimit>().unwrap().devices(own);
        assert_eq!(devices("10%", 1000), Some(100));
        assert_eq!(devices("10%", 8), Some(5));
        assert_eq!(devices("1%", 999), Some(9));
        assert_eq!(devices("3", 1000), Some(3));
        assert_eq!(devices("100%", 1000), None);
        assert_eq!(ChangeLimit::default().devices(1000), Some(100));
    }

    #[test]
    fn one_namespace_may_use_three_quarters_of_the_limit_and_all_of_a_limit_below_four() {
        let shares = [1, 3, 4, 5, 8, 100].map(share_of_one_namespace);
        assert_eq!(shares, [1, 3, 3, 4, 6, 75]);
    }

    #[test]
    fn an_invalid_limit_is_refused_with_an_example() {
        for text in [
            "",
            "0",
            "0%",
            "101%",
            "1.5%",
            "-1",
            "+1",
            "ten",
            "%",
            "1 %",
            "05%",
            "4294967296",
        ] {
            let refused = text.parse::<ChangeLimit>().unwrap_err();
            assert!(refused.0.contains("such as 20"), "{text}: {refused}");
        }
        for text in ["1", "20", "4294967295", "1%", "100%"] {
            assert_eq!(text.parse::<ChangeLimit>().unwrap().to_string(), text);
        }
    }
}
