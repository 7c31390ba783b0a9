//! What is known of the objects in the cluster: as much as a status needs.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// An object as it was seen or written last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known<S> {
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// Its status.
    pub status: S,
}

/// The objects of one kind by name; shared between the router, which sees them, and the reporters,
/// which write their status.
#[derive(Debug)]
pub(super) struct Board<K, S>(Mutex<HashMap<K, Known<S>>>);

impl<K, S> Default for Board<K, S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, S: Clone> Board<K, S> {
    /// Takes an object as a watch shows it. While we write the status ourselves, ours is newer
    /// than what a watch still shows; so `ours` keeps it.
    pub fn seen(&self, key: &K, seen: Known<S>, ours: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(key) {
            Some(before) if ours && before.uid == seen.uid => before.generation = seen.generation,
            _ => {
                known.insert(key.clone(), seen);
            }
        }
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

    /// We have written this status.
    pub fn wrote(&self, key: &K, uid: &str, status: S) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(key).filter(|known| known.uid == uid) {
            known.status = status;
        }
    }
}
