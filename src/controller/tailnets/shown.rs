//! Objects as the watches show them.

use std::collections::BTreeMap;

/// A value for each object, and the number of the watch that shows the object.
pub(super) struct Shown<K, V>(BTreeMap<K, (V, usize)>);

impl<K, V> Default for Shown<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V> Shown<K, V> {
    pub fn insert(&mut self, watch: usize, key: K, value: V) {
        self.0.insert(key, (value, watch));
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key).map(|(value, _)| value)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|(value, _)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, (value, _))| (key, value))
    }

    /// The objects that this watch has shown and that its complete list lacks. Found here and not in the
    /// watch: an event of an earlier round is dropped, so a watch that restarts cannot know what counts.
    pub fn missing(&self, watch: usize, is_listed: impl Fn(&K) -> bool) -> Vec<K> {
        let shown = self.0.iter().filter(|(_, (_, by))| *by == watch);
        shown
            .map(|(key, _)| key)
            .filter(|key| !is_listed(key))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_only_objects_of_its_own_watch() {
        let mut shown = Shown::default();
        shown.insert(0, "a", 1);
        shown.insert(0, "b", 2);
        shown.insert(1, "c", 3);
        assert_eq!(shown.missing(0, |key| *key == "b"), ["a"]);
        assert_eq!(shown.missing(1, |_| true), Vec::<&str>::new());
    }

    #[test]
    fn object_that_moves_to_another_watch_belongs_to_that_one() {
        let mut shown = Shown::default();
        shown.insert(0, "a", 1);
        shown.insert(1, "a", 2);
        assert_eq!(shown.missing(0, |_| false), Vec::<&str>::new());
        assert_eq!(shown.missing(1, |_| false), ["a"]);
        assert_eq!((shown.remove(&"a"), shown.get(&"a")), (Some(2), None));
    }
}
