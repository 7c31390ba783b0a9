//! What is known of the objects in the cluster: as much as a status needs.

use std::{
    cmp::Ordering,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use super::status_patch::Target;

/// An object as it was seen or written last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known<S> {
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// Its resourceVersion: a status is written over this version, and no other.
    pub version: String,
    /// Its status, and what else the controller writes.
    pub status: S,
}

impl<S> Known<S> {
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

/// The objects of one kind by name; shared between the router, which sees them, and the reporters,
/// which write their status. The newest version of each counts, wherever it comes from: a watch may
/// still show one from before our own write.
#[derive(Debug)]
pub(super) struct ObjectCache<K, S>(Mutex<HashMap<K, Known<S>>>);

impl<K, S> Default for ObjectCache<K, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, S: Clone> ObjectCache<K, S> {
    /// Takes an object as it was read, unless a newer version of it is known. Gives what was known of
    /// the same object before, if that is out of date now.
    pub fn seen(&self, key: &K, seen: Known<S>) -> Option<Known<S>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(key);
        if before.is_some_and(|before| is_older(&seen.version, &before.version)) {
            return None;
        }
        let uid = seen.uid.clone();
        let before = known.insert(key.clone(), seen);
        before.filter(|before| before.uid == uid)
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
            .cloned()
    }

    /// We have written to the object, which made it this version.
    pub fn wrote(&self, key: &K, uid: &str, version: String, change: impl FnOnce(&mut S)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_mut(key).filter(|known| known.uid == uid);
        if let Some(known) = known.filter(|known| !is_older(&version, &known.version)) {
            change(&mut known.status);
            known.version = version;
        }
    }
}

/// Whether a resourceVersion is older than another one of the same kind of object. Kubernetes
/// guarantees that they are decimal numbers that grow; others are taken as they come.
pub(super) fn is_older(version: &str, other: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(version) || !is_number(other) {
        return false;
    }
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
            status: status.to_owned(),
        }
    }

    fn status(board: &ObjectCache<u8, String>) -> String {
        board.get(&0).unwrap().status
    }

    #[test]
    fn what_a_watch_shows_from_before_our_write_does_not_replace_it() {
        let board = ObjectCache::default();
        board.seen(&0, known("9", "before"));
        board.wrote(&0, "a", "11".to_owned(), |status| {
            *status = "ours".to_owned();
        });
        board.seen(&0, known("10", "an edit from before"));
        assert_eq!(status(&board), "ours");
        board.seen(&0, known("11", "ours, as the watch shows it"));
        assert_eq!(status(&board), "ours, as the watch shows it");
    }

    #[test]
    fn what_was_written_since_our_write_replaces_it_though_our_answer_comes_later() {
        let board = ObjectCache::default();
        board.seen(&0, known("9", "before"));
        board.seen(&0, known("12", "another leader's"));
        board.wrote(&0, "a", "11".to_owned(), |status| {
            *status = "ours".to_owned();
        });
        assert_eq!(board.get(&0).unwrap(), known("12", "another leader's"));
    }

    #[test]
    fn versions_compare_as_numbers_and_others_not_at_all() {
        assert!(is_older("9", "10") && is_older("18446744073709551616", "18446744073709551617"));
        assert!(!is_older("10", "9") && !is_older("10", "10"));
        assert!(!is_older("a", "b") && !is_older("", "1") && !is_older("1", ""));
    }
}
