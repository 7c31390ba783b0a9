//! The expiries of the attribute keys that a policy owns.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{AttributeKey, DesiredAttribute};

/// The characters that a record has at most, so that a status keeps its size. An entry takes those of its key
/// and of a time.
const MAX_LENGTH: usize = 2048;
const TIME_LENGTH: usize = 24;

/// With which expiry a policy declared its attribute keys, in whole seconds. After it, the server has removed
/// the attribute, and a value that someone sets later is theirs, even if the key is no longer declared and no
/// controller ran meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyExpiries(BTreeMap<AttributeKey, Timestamp>);

impl KeyExpiries {
    /// The recorded expiries.
    #[must_use]
    pub fn recorded(expiries: BTreeMap<AttributeKey, Timestamp>) -> Self {
        Self(expiries)
    }

    /// The expiries to record.
    pub fn iter(&self) -> impl Iterator<Item = (&AttributeKey, Timestamp)> {
        self.0.iter().map(|(key, expiry)| (key, *expiry))
    }

    /// The expiries to record next: those that the spec declares, and the recorded ones of keys that it no
    /// longer declares and that are still owned.
    #[must_use]
    pub fn after(
        &self,
        declared: &BTreeMap<AttributeKey, DesiredAttribute>,
        owned: &BTreeSet<AttributeKey>,
    ) -> Self {
        let no_longer_declared = self
            .iter()
            .filter(|(key, _)| owned.contains(*key) && !declared.contains_key(*key));
        let expiring = declared
            .iter()
            .filter_map(|(key, desired)| Some((key, whole_second(desired.expiry?))));
        let mut all: Vec<_> = no_longer_declared.chain(expiring).collect();
        // What expires first is needed first.
        all.sort_by_key(|(key, expiry)| (*expiry, *key));
        let mut length = 0;
        let recorded = all.into_iter().take_while(|(key, _)| {
            length += key.as_str().len() + TIME_LENGTH;
            length <= MAX_LENGTH
        });
        Self(recorded.map(|(key, at)| (key.clone(), at)).collect())
    }

    /// The keys whose expiry has passed.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> BTreeSet<AttributeKey> {
        let expired = self.0.iter().filter(|(_, expiry)| **expiry <= now);
        expired.map(|(key, _)| key.clone()).collect()
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    // Kubernetes stores whole seconds: with a fraction, the record would differ from the one in the status.
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AttributeValue;

    fn key(name: &str) -> AttributeKey {
        format!("custom:{name}").parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn declared(
        expiries: impl IntoIterator<Item = (AttributeKey, Option<Timestamp>)>,
    ) -> BTreeMap<AttributeKey, DesiredAttribute> {
        let value = AttributeValue::Boolean(true);
        let desired = |expiry| DesiredAttribute {
            value: value.clone(),
            expiry,
        };
        let declared = expiries.into_iter();
        declared.map(|(key, at)| (key, desired(at))).collect()
    }

    #[test]
    fn an_expiry_is_recorded_until_the_key_is_no_longer_owned() {
        let owned = BTreeSet::from([key("a"), key("b")]);
        let both = declared([(key("a"), Some(at(5))), (key("b"), None)]);
        let expiries = KeyExpiries::default().after(&both, &BTreeSet::new());
        assert_eq!(expiries.iter().collect::<Vec<_>>(), [(&key("a"), at(5))]);
        let dropped = expiries.after(&BTreeMap::new(), &owned);
        assert_eq!(dropped, expiries);
        assert!(dropped.expired(at(4)).is_empty());
        assert_eq!(dropped.expired(at(5)), [key("a")].into());
        let forgotten = dropped.after(&BTreeMap::new(), &[key("b")].into());
        assert_eq!(forgotten, KeyExpiries::default());
        let without = expiries.after(&declared([(key("a"), None)]), &owned);
        assert_eq!(without, KeyExpiries::default());
    }

    #[test]
    fn a_record_keeps_the_first_expiries_and_has_a_bound() {
        let keys = (0..64).map(|number| key(&format!("{number:0>100}")));
        let all = declared(
            keys.map(|key| (key, Some(at(9))))
                .chain([(key("a"), Some(at(1)))]),
        );
        let expiries = KeyExpiries::default().after(&all, &BTreeSet::new());
        assert!(expiries.expired(at(1)).contains(&key("a")));
        let length: usize = expiries.iter().map(|(key, _)| key.as_str().len()).sum();
        assert!(length < MAX_LENGTH && expiries.iter().count() > 10);
    }
}
