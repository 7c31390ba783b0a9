//! OAuth scopes.

use std::collections::BTreeSet;

/// A set of OAuth scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// The scope `all`.
    #[must_use]
    pub fn all() -> Self {
        Self(BTreeSet::from(["all".to_owned()]))
    }

    /// Parses scopes that are separated by spaces or commas.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let scopes = text.split([' ', ',']).filter(|scope| !scope.is_empty());
        Self(scopes.map(str::to_owned).collect())
    }

    /// Whether these scopes include a scope, also by its older spelling.
    pub(super) fn include(&self, scope: &str) -> bool {
        // A scope that may write may also read.
        let with_write = scope.strip_suffix(":read");
        let read = if with_write.is_some() { ":read" } else { "" };
        let base = with_write.unwrap_or(scope);
        // The spellings from before 2024-11-14, which are still valid.
        let older = match base {
            "devices:core" | "devices:posture_attributes" | "auth_keys" => Some("devices"),
            "devices:routes" => Some("routes"),
            "device_invites" => Some("devices_invites"),
            "policy_file" => Some("acl"),
            _ => None,
        };
        [Some(base), older, Some("all")]
            .into_iter()
            .flatten()
            .any(|name| {
                self.0.contains(name)
                    || (!read.is_empty() && self.0.contains(&format!("{name}{read}")))
            })
    }

    /// The scopes, joined by spaces.
    pub(super) fn joined(&self) -> String {
        let scopes: Vec<_> = self.0.iter().map(String::as_str).collect();
        scopes.join(" ")
    }

    /// Whether these scopes include all of `wanted`.
    pub(super) fn cover(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|scope| self.include(scope))
    }
}
