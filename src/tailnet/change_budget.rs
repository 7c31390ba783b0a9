//! The change limit: which policies it holds now.
use std::collections::BTreeSet;

use super::{
    Now, RecentChanges, RecentDeletions, ReservedDevices, deletions::DeletionLog,
    reserve::Reservations, window::Window,
};
use crate::{
    model::NodeId,
    plan::{Approvals, PlanHash, PolicyKey, WantedChanges},
};

/// What the tailnet's resource records besides its settings: the approvals in its annotation, and the changes
/// of earlier processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailnetDeclared {
    /// The approvals in its annotation.
    pub approvals: Approvals,
    /// The devices that were changed within the last hour.
    pub recent: Vec<RecentChanges>,
    /// The devices that may have been changed since.
    pub reserved: ReservedDevices,
    /// The devices that were deleted within the last day.
    pub deletions: Vec<RecentDeletions>,
}

/// A policy that the change limit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedPolicy {
    /// The policy.
    pub policy: PolicyKey,
    /// How many devices it would change.
    pub devices: usize,
    /// The hash that an approval names, once its changes are frozen.
    pub hash: Option<PlanHash>,
}

/// The change limit of a tailnet, and what counts against it.
#[derive(Debug, Default)]
pub(super) struct ChangeBudget {
    pub window: Window,
    /// The changes that count against the limit.
    pub wants: WantedChanges,
    /// All needed changes, including those that count for nothing.
    all: WantedChanges,
    /// The policies that need to change more devices than the limit allows within an hour. Such a change is
    /// no small correction, so none of its devices is free.
    large: BTreeSet<PolicyKey>,
    /// The policies that the limit holds.
    pub held: BTreeSet<PolicyKey>,
    /// Those of them that exceed the share of their namespace.
    pub beyond_share: BTreeSet<PolicyKey>,
    pub approvals: Approvals,
    /// The record of previous leaders, until this process takes it over when it starts to lead.
    recorded: Option<TailnetDeclared>,
    taken_over: bool,
    /// The current record of changes; `None` until the previous one is taken over.
    recent: Option<Vec<RecentChanges>>,
    recent_is_dirty: bool,
    pub reservations: Reservations,
    pub deletions: DeletionLog,
}

impl ChangeBudget {
    /// A request that changes a device for a namespace is sent.
    pub fn begin(&mut self, id: &NodeId, namespace: Option<String>) {
        self.window.begin(id, namespace);
        let waiting = self.waiting(id);
        self.wants.set(id, waiting);
    }

    /// The request was answered.
    pub fn end(&mut self, id: &NodeId, changed: bool, now: Now) {
        self.window.end(id, changed, now);
        self.recent_is_dirty |= changed;
    }

    /// Takes a device's plan into account. Changing a device again within the hour is free, except for a
    /// policy that changes many devices and for one that is held already: a plan that is frozen under a hash
    /// waits for its own approval or for the limit, whatever another policy has changed meanwhile.
    pub fn note(&mut self, id: &NodeId, needed_by: &BTreeSet<PolicyKey>) {
        self.all.set(id, needed_by.clone());
        let mut counted = needed_by.clone();
        if self.window.has(id) {
            let waiting = self.waiting(id);
            counted.retain(|key| self.large.contains(key) || waiting.contains(key));
        }
        self.wants.set(id, counted);
    }

    /// Finds the policies that need to change more devices than the limit allows. Returns the devices of
    /// those whose answer has changed.
    pub fn find_large(&mut self, most: Option<usize>) -> BTreeSet<NodeId> {
        let mut concerned = BTreeSet::new();
        let large = most.map(|most| self.all.larger_than(most));
        let large = large.unwrap_or_default();
        for key in large.symmetric_difference(&self.large) {
            let waits = large.contains(key) || self.held.contains(key);
            for id in self.all.of(key) {
                let mut counted = self.wants.by(id).clone();
                if waits || !self.window.has(id) {
                    counted.insert(key.clone());
                } else {
                    counted.remove(key);
                }
                self.wants.set(id, counted);
                concerned.insert(id.clone());
            }
        }
        self.large = large;
        concerned
    }

    /// The held policies that need to change a device.
    fn waiting(&self, id: &NodeId) -> BTreeSet<PolicyKey> {
        self.wants
            .by(id)
            .intersection(&self.held)
            .cloned()
            .collect()
    }

    /// Whether a policy is held on a device: on every device except where its change is free.
    pub fn holds(&self, id: &NodeId, key: &PolicyKey) -> bool {
        // A device that was changed within the hour counts already, so changing it again exceeds nothing.
        let is_free = self.window.has(id) && !self.wants.by(id).contains(key);
        self.held.contains(key) && !is_free
    }

    /// Takes the approvals and the record of the tailnet's object. Returns whether the approvals differ.
    pub fn declare(&mut self, declared: TailnetDeclared) -> bool {
        let differ = self.approvals != declared.approvals;
        if differ {
            self.approvals.clone_from(&declared.approvals);
        }
        // Kept even while another process leads: this one takes it over when it starts to lead.
        self.recorded = Some(declared);
        differ
    }

    /// Another term: nothing is reserved, and the record of the previous leader counts.
    pub fn start_term(&mut self) {
        // Another leader may have changed devices since; its record counts again.
        self.taken_over = false;
        self.reservations.clear();
    }

    /// The record of changes; `None` until the previous one is taken over.
    pub const fn recent(&self) -> Option<&Vec<RecentChanges>> {
        self.recent.as_ref()
    }

    /// Takes over the changes of previous leaders, once per term: from then on, this process has the newer
    /// record.
    pub fn take_over(&mut self, now: Now) {
        if let Some(record) = self.recorded.take().filter(|_| !self.taken_over) {
            self.window.take_over(&record.recent, &record.reserved, now);
            self.deletions.take_over(record.deletions);
            self.recent = Some(self.window.recent());
            self.reservations.next_revision();
            self.taken_over = true;
        }
    }

    /// Updates the record of changes. Returns whether it has changed.
    pub fn note_recent(&mut self) -> bool {
        let is_dirty = std::mem::take(&mut self.recent_is_dirty);
        if is_dirty {
            self.recent = Some(self.window.recent());
        }
        is_dirty
    }
}
