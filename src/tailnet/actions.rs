//! One-shot actions: their records before a request, which device may be deleted next, and the stage of each
//! action ([`crate::plan::expiry`] and [`crate::plan::inactivity`] decide).
//!
//! A device is deleted only right after a list that can be trusted: it is complete and recent, it is not the
//! first one, and no list has lost many devices at once for a while. A read of the device right before the
//! request must show the same.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{Device, NodeId},
    plan::{Field, Missed, Stage},
};

/// The number of devices that a message about a missed expiry names.
const NAMED: usize = 3;

/// A missed expiry: the keys were not expired at that time, and will not be. Names the devices that were
/// found at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedExpiry {
    /// The desired time.
    pub at: Timestamp,
    /// Why.
    pub why: Missed,
    /// Some of the devices.
    pub devices: Vec<String>,
    /// How many there are.
    pub total: usize,
}

/// The progress of a policy's one-shot actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ActionReport {
    /// How many actions there are, by stage.
    pub totals: BTreeMap<Stage, usize>,
    /// Some of them; those that need attention most come first.
    pub details: Vec<ActionDetail>,
    /// How far the local clock is ahead of the API's, if that is too far for any action.
    pub clock_skew: Option<SignedDuration>,
}

/// A one-shot action on a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActionDetail {
    /// Its stage.
    pub stage: Stage,
    /// The device.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// [`Field::ExpireKeyAt`] or [`Field::DeleteInactive`].
    pub field: Field,
    /// Why it is held, if it is.
    pub held: Option<String>,
}

/// The state of a policy's one-shot actions that a process keeps in memory only.
#[derive(Debug, Default)]
pub(super) struct DeletionQueue {
    /// The devices that may be deleted now.
    turns: BTreeSet<NodeId>,
    /// Devices that wait because the policy has reached `maxPerDay`.
    waiting: BTreeSet<NodeId>,
    /// Deletions by deleted policies that count for this one too.
    inherited: usize,
    /// The missed expiry that must be reported.
    missed: Option<MissedExpiry>,
}

impl DeletionQueue {
    /// Notes how many deletions by deleted policies count for this one too.
    pub const fn inherit(&mut self, deletions: usize) {
        self.inherited = deletions;
    }

    /// How many deletions by deleted policies count for this one too.
    pub const fn inherited(&self) -> usize {
        self.inherited
    }

    /// Whether no device waits or has its turn.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.waiting.is_empty()
    }

    /// Devices that wait because the policy has reached `maxPerDay`.
    pub fn waiting(&self) -> impl Iterator<Item = &NodeId> {
        self.waiting.iter()
    }

    /// Whether a device may be deleted now.
    pub fn has_turn(&self, id: &NodeId) -> bool {
        self.turns.contains(id)
    }

    /// The other devices that may be deleted now.
    pub fn other_turns(&self, id: &NodeId) -> BTreeSet<NodeId> {
        let mut others = self.turns.clone();
        others.remove(id);
        others
    }

    /// Lets a device be deleted.
    pub fn give_turn(&mut self, id: &NodeId) {
        self.turns.insert(id.clone());
        self.waiting.remove(id);
    }

    /// Makes a device wait, also one that has its turn: another process may have deleted devices since.
    pub fn make_wait(&mut self, id: &NodeId) {
        self.turns.remove(id);
        self.waiting.insert(id.clone());
    }

    /// Takes back the turn of a device that must not be deleted. Returns the device that may take it.
    pub fn end_turn(&mut self, id: &NodeId) -> Option<NodeId> {
        self.waiting.remove(id);
        let had = self.turns.remove(id);
        had.then(|| self.waiting.first().cloned()).flatten()
    }

    /// A missed expiry must be reported.
    pub fn begin_missed(&mut self, at: Timestamp, why: Missed) {
        self.missed = Some(MissedExpiry {
            at,
            why,
            devices: Vec::new(),
            total: 0,
        });
    }

    /// Another device has missed this expiry, if it must be reported still.
    pub fn note_missed(&mut self, at: Timestamp, device: &Device) {
        let missed = self.missed.as_mut();
        if let Some(missed) = missed.filter(|missed| missed.at == at) {
            missed.total += 1;
            if missed.devices.len() < NAMED {
                missed.devices.push(device.label().to_string());
            }
        }
    }

    /// Takes the missed expiry that must be reported.
    pub const fn take_missed(&mut self) -> Option<MissedExpiry> {
        self.missed.take()
    }
}
