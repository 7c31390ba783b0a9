//! Declared settings, one by one, so that devices can share some of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    api::TailscaleDevicePolicySpec as Spec,
    model::{PolicyField, Setting},
};

/// Settings as JSON, by field. Each attribute is a setting of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Settings(BTreeMap<Key, String>);

/// One setting with its value.
pub(super) type One = (Key, String);

/// A field of a spec, and the key in it if the field is a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(String, Option<String>);

fn attributes() -> &'static str {
    PolicyField::PostureAttributes.as_str()
}

impl Settings {
    /// The settings that a spec declares.
    pub fn of(desired: &Spec) -> Result<Self, serde_json::Error> {
        let mut settings = BTreeMap::new();
        let Value::Object(fields) = serde_json::to_value(desired)? else {
            return Ok(Self::default());
        };
        for (field, value) in fields {
            match value {
                Value::Object(entries) if field == attributes() => {
                    for (key, value) in entries {
                        settings.insert(Key(field.clone(), Some(key)), value.to_string());
                    }
                }
                value => {
                    settings.insert(Key(field, None), value.to_string());
                }
            }
        }
        Ok(Self(settings))
    }

    /// A spec that declares them, and nothing else.
    pub fn spec(&self) -> Result<Spec, serde_json::Error> {
        let mut fields = Map::new();
        for (Key(field, entry), text) in &self.0 {
            let value: Value = serde_json::from_str(text)?;
            let Some(entry) = entry else {
                fields.insert(field.clone(), value);
                continue;
            };
            let entries = fields
                .entry(field.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = entries {
                entries.insert(entry.clone(), value);
            }
        }
        serde_json::from_value(Value::Object(fields))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, one: &One) -> bool {
        self.0.get(&one.0) == Some(&one.1)
    }

    /// Those that several devices can have. A name or an address belongs to one.
    pub fn shareable(&self) -> impl Iterator<Item = One> {
        // A policy that gives two devices one name or address could never be in sync.
        let unique: BTreeSet<&str> = Setting::ALL
            .into_iter()
            .filter(|setting| setting.is_tailnet_wide())
            .map(|setting| setting.field().as_str())
            .collect();
        let all = self.0.clone().into_iter();
        all.filter(move |(Key(field, _), _)| !unique.contains(field.as_str()))
    }

    /// Whether several devices can have all of them.
    pub fn is_shareable(&self) -> bool {
        self.shareable().count() == self.0.len()
    }

    pub fn insert(&mut self, one: One) {
        self.0.insert(one.0, one.1);
    }

    pub fn is_subset(&self, other: &Self) -> bool {
        self.0
            .iter()
            .all(|(key, value)| other.0.get(key) == Some(value))
    }

    /// These and others together; `None` if they contradict each other.
    pub fn merged(&self, others: &Self) -> Option<Self> {
        let mut merged = self.clone();
        for (key, value) in &others.0 {
            let before = merged.0.insert(key.clone(), value.clone());
            // Nobody can tell which of the two values is right.
            if before.is_some_and(|before| before != *value) {
                return None;
            }
        }
        Some(merged)
    }

    /// Removes what another one has equally.
    pub fn subtract(&mut self, other: &Self) {
        self.0.retain(|key, value| other.0.get(key) != Some(value));
    }

    /// A few words for a name: `exit-node-tier-gold`.
    pub fn words(&self) -> String {
        let words = self.0.iter().map(|(key, value)| words(key, value));
        words.collect::<Vec<_>>().join("-")
    }

    /// Tells settings apart whose words are the same.
    pub fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn words(Key(field, entry): &Key, value: &str) -> String {
    if let Some(entry) = entry {
        // A name of a policy has no colon, and every key has this prefix.
        let name = entry.strip_prefix("custom:").unwrap_or(entry);
        let value: Value = serde_json::from_str(value).unwrap_or_default();
        let mut kinds = ["string", "integer", "boolean"].into_iter();
        let typed = kinds.find_map(|kind| value.get(kind));
        return match typed {
            Some(Value::String(text)) => format!("{name}-{text}"),
            Some(other) => format!("{name}-{other}"),
            None => name.to_owned(),
        };
    }
    match (field.as_str(), value) {
        ("keyExpiry", "\"Disabled\"") => "no-key-expiry".to_owned(),
        ("keyExpiry", _) => "key-expiry".to_owned(),
        ("exitNode", "true") => "exit-node".to_owned(),
        ("exitNode", _) => "no-exit-node".to_owned(),
        ("enabledRoutes", "[]") => "no-routes".to_owned(),
        ("enabledRoutes", routes) => format!("routes-{routes}"),
        (field, _) => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_a_spec_convert_into_each_other() {
        let spec: Spec = serde_yaml::from_str(
            "{tags: ['tag:a'], keyExpiry: Disabled, enabledRoutes: [], exitNode: true, name: fra, \
             postureAttributes: {'custom:tier': {string: gold}, 'custom:rank': {integer: 3}}}",
        )
        .unwrap();
        let settings = Settings::of(&spec).unwrap();
        assert_eq!(settings.spec().unwrap(), spec);
        assert_eq!(
            settings.words(),
            "no-routes-exit-node-no-key-expiry-name-rank-3-tier-gold-tags"
        );
        assert!(!settings.is_shareable());
        assert_eq!(settings.shareable().count(), 6);
    }
}
