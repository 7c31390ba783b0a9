//! Parts of a refused batch of attributes: a batch is split until the entry that the API refuses is found.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{AttributeKey, NodeId},
    plan::AttributeWrites,
};

/// A part of a refused batch, as a set of attributes: their values are decided when it is sent.
#[derive(Debug)]
pub(super) struct Half(BTreeMap<NodeId, BTreeSet<AttributeKey>>);

impl Half {
    /// The two halves of a batch; `None` if it is a single entry.
    pub fn of(writes: &BTreeMap<NodeId, AttributeWrites>) -> Option<[Self; 2]> {
        let entries: Vec<(&NodeId, &AttributeKey)> = writes
            .iter()
            .flat_map(|(node, writes)| writes.keys().map(move |key| (node, key)))
            .collect();
        // A single entry is the refused one.
        if entries.len() < 2 {
            return None;
        }
        // In two, so that one bad entry of fifty is found with a dozen requests.
        let (first, second) = entries.split_at(entries.len() / 2);
        Some([first, second].map(|half| {
            let mut keys: BTreeMap<NodeId, BTreeSet<AttributeKey>> = BTreeMap::new();
            for (node, key) in half {
                keys.entry((*node).clone())
                    .or_default()
                    .insert((*key).clone());
            }
            Self(keys)
        }))
    }

    /// The devices of this part, with the keys to write.
    pub fn entries(&self) -> impl Iterator<Item = (&NodeId, &BTreeSet<AttributeKey>)> {
        self.0.iter()
    }

    /// The devices of this part.
    pub fn devices(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(entries: &[(&str, &[&str])]) -> BTreeMap<NodeId, AttributeWrites> {
        let all = entries.iter().map(|(id, keys)| {
            let keys = keys.iter().map(|key| (key.parse().unwrap(), None));
            (id.parse().unwrap(), keys.collect())
        });
        all.collect()
    }

    #[test]
    fn a_batch_is_split_into_two_parts_that_have_all_entries() {
        let batch = writes(&[
            ("n1CNTRL", &["custom:a", "custom:b"]),
            ("n2CNTRL", &["custom:a"]),
        ]);
        let halves = Half::of(&batch).unwrap();
        let sizes = halves.each_ref().map(|half| {
            let keys = half.entries().map(|(_, keys)| keys.len());
            (half.devices().count(), keys.sum::<usize>())
        });
        assert_eq!(sizes, [(1, 1), (2, 2)]);
    }

    #[test]
    fn a_single_entry_is_not_split() {
        assert!(Half::of(&writes(&[("n1CNTRL", &["custom:a"])])).is_none());
    }
}
