//! What an access token permits: its OAuth scopes (<https://tailscale.com/kb/1623>).

use std::collections::BTreeSet;

/// A kind of change that a credential permits or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// Authorization, tags, key expiry, name, address; deleting a device and expiring its key.
    Devices,
    /// Subnet routes and exit nodes.
    Routes,
    /// Posture attributes.
    Attributes,
}

impl Ability {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Devices, Self::Routes, Self::Attributes];

    /// The scope that permits it.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::Devices => "devices:core",
            Self::Routes => "devices:routes",
            Self::Attributes => "devices:posture_attributes",
        }
    }

    /// The spelling before 2024-11-14, which is still valid.
    fn older_scope(self) -> &'static str {
        match self {
            Self::Devices | Self::Attributes => "devices",
            Self::Routes => "routes",
        }
    }
}

/// The scopes of a token, as the token endpoint reported them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Parses scopes that are separated by spaces (RFC 6749, section 3.3).
    pub fn parse(text: &str) -> Self {
        Self(text.split_whitespace().map(str::to_owned).collect())
    }

    /// The abilities that they do not permit.
    pub fn missing(&self) -> BTreeSet<Ability> {
        Ability::ALL
            .into_iter()
            .filter(|ability| {
                // Whole words only: `all:read` and `devices:core:read` permit no change.
                [ability.scope(), ability.older_scope(), "all"]
                    .iter()
                    .all(|scope| !self.0.contains(*scope))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_to_read_permit_no_change_and_older_spellings_count() {
        let lack = |text: &str| {
            Scopes::parse(text)
                .missing()
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(lack("all"), []);
        assert_eq!(lack("all:read devices:core:read"), Ability::ALL);
        assert_eq!(
            lack("devices:core devices:posture_attributes"),
            [Ability::Routes]
        );
        assert_eq!(lack("devices"), [Ability::Routes]);
        assert_eq!(lack("routes"), [Ability::Devices, Ability::Attributes]);
    }
}
