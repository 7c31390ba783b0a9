use std::{fmt, str::FromStr};

use serde::Serialize;

use super::Refused;

/// The first label of a device's MagicDNS name, spelled as the server keeps it.
///
/// The server converts to lower case and turns dots and underscores into dashes. A name that it would rewrite
/// could never be in sync, so it is refused here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DeviceLabel(String);

impl DeviceLabel {
    /// The label of a name as the API reports it (`pangolin.tailfe8c.ts.net`).
    #[must_use]
    pub fn reported(fqdn: &str) -> Self {
        // A label has no dots: the server turns them into dashes.
        Self(fqdn.split('.').next().unwrap_or_default().to_owned())
    }

    /// The label alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceLabel {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        // Dashes side by side stay: a hostname such as `web_-_prod` becomes `web---prod`.
        let dashes_inside = !text.starts_with('-') && !text.ends_with('-');
        // DNS limits a label to 63 bytes.
        if !text.is_empty() && text.len() <= 63 && text.bytes().all(letters) && dashes_inside {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refused(format!(
                "'{text}' would be rewritten by the server: write up to 63 lower-case letters and \
                 digits, with dashes between them, such as fra-router"
            )))
        }
    }
}

impl fmt::Display for DeviceLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
