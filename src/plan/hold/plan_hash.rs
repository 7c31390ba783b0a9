//! The hash of a frozen plan.

use std::{fmt, fmt::Write as _, str::FromStr};

use ring::digest::{SHA256, digest};

use crate::model::Refused;

/// The most characters of an invalid entry that its error quotes.
const SHOWN: usize = 80;

/// Identifies a frozen plan: the first 16 hex digits of the SHA-256 of its text. Enough to tell the plans
/// of one time apart; it is not a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanHash(String);

impl PlanHash {
    const BYTES: usize = 8;

    /// The hash of this text.
    pub(super) fn of(text: &str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let bytes = digest.as_ref().iter().take(Self::BYTES);
        Self(bytes.fold(String::new(), |mut hash, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
            hash
        }))
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PlanHash {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let mut bytes = text.bytes();
        if text.len() == 2 * Self::BYTES
            && bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused(format!(
            "'{}' is not a valid plan hash: write the 16 digits of status.heldPlan.hash",
            shortened(text)
        )))
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
