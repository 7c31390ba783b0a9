use std::{fmt, str::FromStr};

use serde::Serialize;

use super::Refused;

/// An ACL tag: `tag:` and a letter, then letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Tag(String);

impl Tag {
    /// A tag as the API reports it. It is not checked: the API has accepted it.
    #[must_use]
    pub fn reported(text: String) -> Self {
        Self(text)
    }

    /// The tag with its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = |why: &str| Err(Refused(format!("'{text}' {why}, such as tag:router")));
        let Some(name) = text.strip_prefix("tag:") else {
            return refused("is not a valid tag: write it with its prefix");
        };
        // As Tailscale's own check (tailcfg.CheckTag), so that the API has nothing left to refuse.
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) && letters {
            Ok(Self(text.to_owned()))
        } else {
            refused("is not a valid tag: after tag: write a letter, then letters, digits or dashes")
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
