//! A cache of the objects in the cluster: the parts that a status needs.

use std::{
    cmp::Ordering,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::status_patch::Target;

/// An object as it was last read or written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct Known<S> {
    /// Distinguishes it from a later object of the same name.
    uid: String,
    /// Counts the edits of its spec.
    generation: i64,
    /// Its resourceVersion: a status is written over this version, and no other.
    version: String,
    stored: S,
}

impl<S> Known<S> {
    /// The object of this metadata; `stored` is the part that the controller writes.
    pub fn new(meta: &ObjectMeta, stored: S) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            stored,
        }
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// Its status, and the other fields that the controller writes.
    pub fn stored(&self) -> &S {
        &self.stored
    }

    /// This version of the object, which has this name; its namespace is empty if it has none.
    pub fn target<'a>(&'a self, namespace: &'a str, name: &'a str) -> Target<'a> {
        Target {
            namespace,
            name,
            uid: &self.uid,
            at: &self.version,
        }
    }
}

/// The objects of one kind by name; shared between the registry, which reads them, and the
/// reporters, which write their status. The newest version of each counts: a watch may still show a
/// version from before our own write.
#[derive(Debug)]
pub(in crate::controller) struct ObjectCache<K, S>(Mutex<HashMap<K, Box<Known<S>>>>);

impl<K, S> Default for ObjectCache<K, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, S: Clone> ObjectCache<K, S> {
    /// Stores an object as it was read, unless a newer version of it is known. Returns the previous
    /// version of the same object, if it is now out of date.
    pub fn seen(&self, key: &K, seen: Known<S>) -> Option<Known<S>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(key);
        if before.is_some_and(|before| is_older(&seen.version, &before.version)) {
            return None;
        }
        let uid = seen.uid.clone();
        let before = known.insert(key.clone(), Box::new(seen));
        before
            .map(|before| *before)
            .filter(|before| before.uid == uid)
    }

    /// An object is gone.
    pub fn gone(&self, key: &K) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// The object, if it is there.
    pub fn get(&self, key: &K) -> Option<Known<S>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .map(|known| Known::clone(known))
    }

    /// How many objects there are of which this is true.
    pub fn count(&self, is_counted: impl Fn(&S) -> bool) -> usize {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = known.values().filter(|known| is_counted(&known.stored));
        counted.count()
    }

    /// Records our own write to the object, which created this version.
    pub fn wrote(&self, key: &K, uid: &str, version: String, change: impl FnOnce(&mut S)) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = objects.get_mut(key)
            // A later object of the name is not the one that was written.
            && known.uid == uid
            // The watch may have shown a later version before the response to our write arrived.
            && !is_older(&version, &known.version)
        {
            change(&mut known.stored);
            known.version = version;
        }
    }
}

/// Whether a resourceVersion is older than another one of the same kind of object. Kubernetes
/// guarantees decimal numbers that grow; others do not compare.
pub(in crate::controller) fn is_older(version: &str, other: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(version) || !is_number(other) {
        return false;
    }
    // Compares decimal numbers of any length without parsing them.
    let by_length = version.len().cmp(&other.len());
    by_length.then_with(|| version.cmp(other)) == Ordering::Less
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(version: &str, status: &str) -> Known<String> {
        Known {
            uid: "a".to_owned(),
            generation: 1,
            version: version.to_owned(),
            stored: status.to_owned(),
        }
    }

    fn status(cache: &ObjectCache<u8, String>) -> String {
        cache.get(&0).unwrap().stored
    }

    #[test]
    fn watch_event_from_before_our_write_does_not_replace_it() {
        let cache = ObjectCache::default();
        cache.seen(&0, known("9", "before"));
        cache.wrote(&0, "a", "11".to_owned(), |status| {
            *status = "ours".to_owned();
        });
        cache.seen(&0, known("10", "an edit from before"));
        assert_eq!(status(&cache), "ours");
        cache.seen(&0, known("11", "ours, as the watch shows it"));
        assert_eq!(status(&cache), "ours, as the watch shows it");
    }

    #[test]
    fn later_write_is_kept_although_our_response_comes_after_it() {
        let cache = ObjectCache::default();
        cache.seen(&0, known("9", "before"));
        cache.seen(&0, known("12", "another leader's"));
        cache.wrote(&0, "a", "11".to_owned(), |status| {
            *status = "ours".to_owned();
        });
        assert_eq!(cache.get(&0).unwrap(), known("12", "another leader's"));
    }

    #[test]
    fn versions_compare_as_numbers_and_others_not_at_all() {
        assert!(is_older("9", "10") && is_older("18446744073709551616", "18446744073709551617"));
        assert!(!is_older("10", "9") && !is_older("10", "10"));
        assert!(!is_older("a", "b") && !is_older("", "1") && !is_older("1", ""));
    }
}
