//! Who owns a device.

use std::{fmt, str::FromStr};

use crate::model::{Device, DeviceField, Refused, UnreadableFields};

/// The owner of a device, as the control server reports it. A policy follows another machine under a known
/// name only if the owner is the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Its user.
    User(String),
    /// Its tags: a tagged device no longer has a user.
    Tagged,
}

impl Owner {
    /// The owner of a device now.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        if device.tags.is_empty() {
            Self::User(device.user.clone())
        } else {
            Self::Tagged
        }
    }

    /// The fields that keep it unknown who owns a device.
    #[must_use]
    pub fn unknown(device: &Device) -> UnreadableFields {
        // The user of a tagged device does not matter.
        if !device.tags.is_empty() {
            return UnreadableFields::default();
        }
        let needed = [DeviceField::Tags, DeviceField::User];
        device.unreadable.among(&needed)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(login) => f.write_str(login),
            Self::Tagged => f.write_str("tagged"),
        }
    }
}

impl FromStr for Owner {
    type Err = Refused;

    /// As [`Owner`] displays it; a login name always has an `@` or is not `tagged`.
    fn from_str(text: &str) -> Result<Self, Refused> {
        Ok(match text {
            "tagged" => Self::Tagged,
            login => Self::User(login.to_owned()),
        })
    }
}
