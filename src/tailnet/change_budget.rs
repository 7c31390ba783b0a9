//! The change limit: which policies it holds now.

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::BTreeSet, time::Duration};

use jiff::Timestamp;

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
    window: Window,
    /// The changes that count against the limit.
    wants: WantedChanges,
    /// All needed changes, including those that count for nothing.
    all: WantedChanges,
    /// The policies that need to change more devices than the limit allows within an hour. Such a change is
    /// no small correction, so none of its devices is free.
    large: BTreeSet<PolicyKey>,
    /// The policies that the limit holds.
    held: BTreeSet<PolicyKey>,
    /// Those of them that exceed the share of their namespace.
    beyond_share: BTreeSet<PolicyKey>,
    /// The approvals on the tailnet.
    approvals: Approvals,
    /// The record of previous leaders, until this process takes it over when it starts to lead.
    recorded: Option<TailnetDeclared>,
    taken_over: bool,
    /// The current record of changes; `None` until the previous one is taken over.
    recent: Option<Vec<RecentChanges>>,
    recent_is_dirty: bool,
    /// Policies between which the limit cannot decide: whether one needs a change depends on whether the other is
    /// held. All of them are held.
    unsettled: BTreeSet<PolicyKey>,
    /// The number of changed devices that is reported, and when it last moved.
    changed: usize,
    changed_moved: Duration,
    reservations: Reservations,
    deletions: DeletionLog,
}

/// How often the reported number of changed devices decreases. An hour after a rollout its devices no longer
/// count one after the other, and each move of the number is a write.
const DECREASES: Duration = Duration::from_mins(5);
/// How often it increases in the course of a rollout.
const INCREASES: Duration = Duration::from_secs(30);

/// The policies that the limit treats differently than before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LimitChange {
    /// The policies that it holds now, or no longer.
    pub held: BTreeSet<PolicyKey>,
    /// The policies that exceed the share of their namespace now, or no longer.
    pub beyond_share: BTreeSet<PolicyKey>,
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
        // It counts already, so changing it again is free: but not for plans that are held as a whole
        // (docs/decisions/0016).
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
        let large = most
            .map(|most| self.all.larger_than(most))
            .unwrap_or_default();
        for key in large.symmetric_difference(&self.large) {
            // A policy that is held stays counted with all of its devices, or its plan would fall apart
            // (docs/decisions/0016).
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

    /// Decides which policies are held, so that no more than `most` devices are changed, and no more than
    /// `share` for one namespace. Returns for which policies the answer differs from the last one.
    pub fn hold<R: Ord>(
        &mut self,
        most: Option<usize>,
        share: Option<usize>,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> LimitChange {
        let (mut held, beyond_share) = most
            // Nothing counts against the limit, so it holds no policy.
            .filter(|_| !self.wants.is_empty())
            .map(|most| self.beyond_limit(most, share, rank))
            .unwrap_or_default();
        held.extend(self.unsettled.iter().cloned());
        let change = LimitChange {
            held: held.symmetric_difference(&self.held).cloned().collect(),
            beyond_share: beyond_share
                .symmetric_difference(&self.beyond_share)
                .cloned()
                .collect(),
        };
        self.held = held;
        self.beyond_share = beyond_share;
        change
    }

    /// The policies that exceed the limit, and those of them that exceed the share of their namespace.
    fn beyond_limit<R: Ord>(
        &self,
        most: usize,
        share: Option<usize>,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> (BTreeSet<PolicyKey>, BTreeSet<PolicyKey>) {
        let beyond_share = share
            .map(|share| {
                // What was sent within the hour counts against the share, like against the limit.
                let used = self.window.by_namespace();
                self.wants.beyond_shares(
                    |namespace| {
                        share.saturating_sub(used.get(namespace).copied().unwrap_or_default())
                    },
                    &rank,
                )
            })
            .unwrap_or_default();
        let room = most.saturating_sub(self.window.count());
        let mut held = self.wants.policies_over_limit(room, &beyond_share, rank);
        // A policy beyond its share is held even while the tailnet's limit has room.
        held.extend(beyond_share.iter().cloned());
        (held, beyond_share)
    }

    /// Holds these policies until a device is planned for another reason.
    pub fn hold_unsettled(&mut self, policies: BTreeSet<PolicyKey>) {
        self.unsettled = policies;
    }

    /// The policies that the limit holds.
    pub const fn held(&self) -> &BTreeSet<PolicyKey> {
        &self.held
    }

    /// Whether a policy is held because it exceeds the share of its namespace.
    pub fn is_beyond_share(&self, key: &PolicyKey) -> bool {
        self.beyond_share.contains(key)
    }

    /// The devices that a policy needs to change and that count against the limit.
    pub fn wanted_by(&self, key: &PolicyKey) -> impl ExactSizeIterator<Item = &NodeId> {
        self.wants.of(key)
    }

    /// The devices whose last change is an hour old: they count again from now on.
    pub fn expire(&mut self, now: Duration) -> Vec<NodeId> {
        self.window.expire(now)
    }

    /// When the limit may stop holding a policy.
    pub fn holds_until(&self) -> Option<Duration> {
        let holds = !self.held.is_empty();
        holds.then(|| self.window.next_end()).flatten()
    }

    /// Whether a request that changes a device is in flight.
    pub fn is_in_flight(&self, id: &NodeId) -> bool {
        self.window.is_in_flight(id)
    }

    /// The approvals on the tailnet.
    pub const fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// The devices that may be changed next.
    pub const fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// The same, to reserve devices or to note what is durable.
    pub const fn reservations_mut(&mut self) -> &mut Reservations {
        &mut self.reservations
    }

    /// Gives back idle devices: they count only if they were changed.
    pub fn give_back(&mut self, idle: &[NodeId]) {
        let window = &self.window;
        let given_back = self.reservations.give_back(idle, |id| window.has(id));
        // What they used up is counted before their reservation ends, or a crash between the two would
        // lose it.
        if given_back && (self.note_recent() || !idle.is_empty()) {
            self.reservations.next_revision();
        }
    }

    /// Reserves devices that must be changed next: first `urgent` ones, then others. `most`: the limit;
    /// `namespace_of`: whose policy changes a device.
    pub fn reserve(
        &mut self,
        urgent: Vec<NodeId>,
        others: Vec<NodeId>,
        most: usize,
        namespace_of: impl Fn(&NodeId) -> Option<String>,
    ) {
        let Self {
            window,
            wants,
            held,
            reservations,
            ..
        } = self;
        // Devices that are reserved and not changed yet fill room already.
        let unused = reservations.reserved().filter(|id| !window.has(id)).count();
        let room = most.saturating_sub(window.count() + unused);
        reservations.reserve(
            (urgent, others),
            room,
            // A device that was changed within the hour, or is approved to exceed the limit, uses up nothing,
            // even if held policies need to change it too.
            |id| !window.has(id) && wants.by(id).iter().any(|key| !held.contains(key)),
            namespace_of,
        );
    }

    /// The deletions of the last day.
    pub const fn deletions(&self) -> &DeletionLog {
        &self.deletions
    }

    /// Forgets deletions that are a day old. Returns whether there were any.
    pub fn expire_deletions(&mut self, now: Timestamp) -> bool {
        self.deletions.expire(now)
    }

    /// Counts a deletion that is about to be sent, in the next record.
    pub fn begin_deletion(&mut self, policy: &PolicyKey, uid: &str, now: Timestamp) {
        let revision = self.reservations.next_revision();
        self.deletions.add(policy, uid, now, revision);
    }

    /// Whether all counted deletions are durable.
    pub fn has_recorded_deletions(&self) -> bool {
        self.reservations.has_recorded(self.deletions.revision())
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

    /// How many devices were changed within the hour, as people see it; `None` until the record of the previous
    /// leader is taken over.
    pub fn changed(&self) -> Option<usize> {
        self.recent.as_ref().map(|_| self.changed)
    }

    /// Updates the reported number of changed devices. `is_quiet`: nothing is under way.
    pub fn count_changed(&mut self, is_quiet: bool, now: Duration) {
        let changed = self.window.changed();
        let pause = match changed.cmp(&self.changed) {
            Ordering::Equal => return,
            Ordering::Less => DECREASES,
            Ordering::Greater if is_quiet => Duration::ZERO,
            Ordering::Greater => INCREASES,
        };
        if now >= self.changed_moved + pause {
            self.changed = changed;
            self.changed_moved = now;
        }
    }

    /// Takes over the changes of previous leaders, once per term: from then on, this process has the newer
    /// record.
    pub fn take_over(&mut self, now: Now) {
        if let Some(record) = self.recorded.take().filter(|_| !self.taken_over) {
            self.window.take_over(&record.recent, &record.reserved, now);
            self.deletions.take_over(record.deletions);
            self.recent = Some(self.window.recent());
            self.changed = self.window.changed();
            self.reservations.next_revision();
            self.taken_over = true;
        }
    }

    /// Updates the record of changes. Returns whether it has changed.
    fn note_recent(&mut self) -> bool {
        let is_dirty = std::mem::take(&mut self.recent_is_dirty);
        if is_dirty {
            self.recent = Some(self.window.recent());
        }
        is_dirty
    }
}
