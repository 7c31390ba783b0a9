//! What the API has reported: the devices, with the results of writes and of single reads laid over the last
//! list, which devices that list lacks, and how old all of this is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Failure, Now, Ticket,
    absence::Absence,
    clock::ApiClock,
    device_lookup::is_lacking,
    listed::ListedDevices,
    polling::{Asked, Polling},
    read_shares::ReadShares,
    sign_ins::SignIns,
};
use crate::{
    model::{Device, NodeId, UnreadableDevices},
    plan::DeviceIndex,
};

/// The snapshot of a tailnet.
#[derive(Debug, Default)]
pub(super) struct Observed {
    index: DeviceIndex,
    /// The devices of the last list whose identity cannot be read.
    skipped: UnreadableDevices,
    polling: Polling,
    absence: Absence,
    sign_ins: SignIns,
    clock: ApiClock,
    /// Devices that need regular reads of their own.
    read_shares: ReadShares,
    /// Deleted devices, with the revision of their deletion: an older list may still have them.
    deleted: BTreeMap<NodeId, u64>,
    /// Counts the times when everything that was known became invalid: a new connection, a new term.
    epoch: u64,
    /// Counts answers about single devices, so that a list from before one of them is not taken for a later
    /// read.
    revision: u64,
}

impl Observed {
    /// The devices, as far as they are known.
    pub const fn index(&self) -> &DeviceIndex {
        &self.index
    }

    /// A device was read or changed. Returns whether a fact differs that selectors use.
    #[must_use]
    pub fn put(&mut self, device: Device) -> bool {
        // Compared first, as the facts from before are lost then.
        let known = self.index.get(&device.node_id);
        let facts_differ = known.is_none_or(|known| known.facts_differ(&device));
        if let Some(known) = known {
            self.sign_ins.compare(known, &device);
        }
        self.index.insert(device);
        facts_differ
    }

    /// A device is gone. A list that was requested earlier may still have it.
    pub fn remove(&mut self, id: &NodeId) {
        self.index.remove(id);
        // Proven, so that a list that lacks it now is not taken for the first one.
        self.absence.prove(id, self.polling.lists());
    }

    /// A device was deleted: it is gone, whatever a list says that was requested earlier.
    pub fn note_deleted(&mut self, id: &NodeId) {
        // The revision tells lists that were requested before the deletion from later ones.
        self.deleted.insert(id.clone(), self.revision);
        self.remove(id);
    }

    /// Whether a list may have a device that is deleted.
    pub fn is_deleted(&self, id: &NodeId) -> bool {
        self.deleted.contains_key(id)
    }

    /// A list that was requested at this revision has arrived: it lacks the devices that were deleted before.
    pub fn forget_deleted(&mut self, requested_at: u64) {
        self.deleted.retain(|_, at| *at > requested_at);
    }

    /// Replaces all devices. Returns the previous ones.
    pub fn replace(&mut self, index: DeviceIndex) -> DeviceIndex {
        std::mem::replace(&mut self.index, index)
    }

    /// Takes the devices of a list, and those that it lacks and that are not given up.
    pub fn take_listed(&mut self, listed: ListedDevices) {
        listed.apply(&mut self.index);
        self.sign_ins.retain(&self.index);
    }

    /// Takes the owners of the devices of a list, as it reports them. Returns the devices whose new owner is
    /// confirmed now.
    pub fn take_owners(&mut self, listed: &[Device]) -> Vec<NodeId> {
        // Before the comparison: the list that shows a sign-in does not confirm it.
        let confirmed = self.sign_ins.take_list(listed);
        for device in listed {
            if let Some(known) = self.index.get(&device.node_id) {
                self.sign_ins.compare(known, device);
            }
        }
        confirmed
    }

    /// The devices that someone has signed in on again.
    pub const fn sign_ins(&self) -> &SignIns {
        &self.sign_ins
    }

    /// The devices that someone has signed in on again, to note what is suspected.
    pub fn sign_ins_mut(&mut self) -> &mut SignIns {
        &mut self.sign_ins
    }

    /// The devices of the last list whose identity cannot be read.
    pub const fn skipped(&self) -> &UnreadableDevices {
        &self.skipped
    }

    /// Notes the devices of a list whose identity cannot be read.
    pub fn set_skipped(&mut self, skipped: UnreadableDevices) {
        self.skipped = skipped;
    }

    /// All devices that could not be read completely.
    pub fn unreadable(&self) -> UnreadableDevices {
        let mut all = UnreadableDevices::default();
        for device in self.index.unreadable().filter_map(Device::unread) {
            all.push(device);
        }
        all.append(&self.skipped);
        all
    }

    /// When to poll, and the results of the last polls.
    pub const fn polling(&self) -> &Polling {
        &self.polling
    }

    /// The number of complete lists since the connection was made or the term began.
    pub const fn lists(&self) -> u64 {
        self.polling.lists()
    }

    /// Polls at once.
    pub fn poll_now(&mut self, now: Duration) {
        self.polling.poll_now(now);
    }

    /// Polls again shortly after the last list, as only two lists can be compared.
    pub fn compare_soon(&mut self) {
        self.polling.compare_soon();
    }

    /// Polls, unless a poll that shows everything that was answered until now is in flight.
    pub fn poll_after_writes(&mut self, now: Duration) {
        self.polling.begin_list(now, self.revision);
    }

    /// Trusts no list for a while.
    pub fn doubt(&mut self) {
        self.polling.doubt();
    }

    /// A poll was sent.
    pub fn poll_sent(&mut self, ticket: Ticket) {
        self.polling.asked(Asked {
            ticket,
            // What is answered after this moment may not be in the list.
            at: self.revision,
        });
    }

    /// The poll with this ticket was answered; `None` if it was given up meanwhile.
    pub fn poll_answered(&mut self, ticket: Ticket) -> Option<Asked> {
        self.polling.answered(ticket)
    }

    /// A complete list has arrived.
    pub fn poll_succeeded(&mut self, now: Now, interval: Duration, rng: &mut fastrand::Rng) {
        self.polling.succeeded(now, interval, rng);
    }

    /// The list could not be read.
    pub fn poll_failed(&mut self, now: Duration, failure: Failure, rng: &mut fastrand::Rng) {
        self.polling.failed(now, failure, rng);
    }

    /// Whether the last lists lack a device that is not proven to be gone.
    pub fn has_lost(&self, id: &NodeId) -> bool {
        is_lacking(&self.index, id) && !self.absence.is_gone(id)
    }

    /// The devices that the last list lacks.
    pub const fn absence(&self) -> &Absence {
        &self.absence
    }

    /// The devices that the last list lacks, to note what is learned about them.
    pub fn absence_mut(&mut self) -> &mut Absence {
        &mut self.absence
    }

    /// Takes the time of an answer.
    pub fn read_clock(&mut self, date: Option<Timestamp>, now: Duration) {
        self.clock.read(date, now);
    }

    /// Another API may have another clock.
    pub fn forget_clock(&mut self) {
        self.clock.forget();
    }

    /// The effective time: the wall clock's, or the API's if the two are too far apart. Returns also whether
    /// the reported skew has changed.
    pub fn effective_time(&mut self, now: Now) -> (Now, bool) {
        self.clock.effective(now)
    }

    /// How far the wall clock is ahead of the API's, if that is too far.
    pub const fn clock_skew(&self) -> Option<SignedDuration> {
        self.clock.skew()
    }

    /// A device is read for these namespaces; without any, it is not read.
    pub fn set_readers(&mut self, id: &NodeId, namespaces: BTreeSet<String>) {
        self.read_shares.set(id, namespaces);
    }

    /// Computes the intervals of reads again, if the devices to read have changed.
    pub fn share_reads(&mut self, interval: Duration, per_second: f64) {
        self.read_shares.share_out(interval, per_second);
    }

    /// How old the reads of a device may be.
    pub fn read_interval(&self, id: &NodeId, least: Duration) -> Duration {
        self.read_shares.interval(id, least)
    }

    /// How old the reads of any device may be.
    pub fn longest_read_interval(&self, least: Duration) -> Duration {
        self.read_shares.longest(least)
    }

    /// Counts the times when everything that was known became invalid.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A request about a single device was answered. Returns the new revision.
    pub fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Nothing that was read before counts any longer: everything is read again.
    pub fn restart(&mut self, now: Duration) {
        // Requests that are in flight now are recognized as outdated when their answers arrive.
        self.epoch += 1;
        self.polling.restart(now);
        self.absence.restart();
        self.sign_ins.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        "n1CNTRL".parse().unwrap()
    }

    #[test]
    fn a_list_from_before_a_deletion_does_not_bring_the_device_back() {
        let mut observed = Observed::default();
        let before = observed.revision;
        let after = observed.next_revision();
        observed.note_deleted(&node());
        assert!(observed.index().get(&node()).is_none());
        assert!(observed.absence().is_gone(&node()));
        observed.forget_deleted(before);
        assert!(observed.is_deleted(&node()));
        observed.forget_deleted(after);
        assert!(!observed.is_deleted(&node()));
    }

    #[test]
    fn after_a_restart_no_list_and_no_absence_counts_and_earlier_reads_are_outdated() {
        let mut observed = Observed::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Now {
            monotonic: Duration::ZERO,
            wall: Timestamp::UNIX_EPOCH,
        };
        observed.poll_succeeded(now, Duration::from_mins(1), &mut rng);
        assert_eq!(observed.polling().polled_at(), Some(now.wall));
        observed.note_deleted(&node());
        assert_eq!((observed.lists(), observed.epoch()), (1, 0));
        observed.restart(Duration::from_secs(9));
        assert_eq!((observed.lists(), observed.epoch()), (0, 1));
        assert_eq!(observed.polling().polled_at(), None);
        assert!(!observed.absence().is_missing(&node()));
        assert!(observed.polling().is_due(Duration::from_secs(9)));
    }

    #[test]
    fn a_poll_in_flight_verifies_only_what_was_answered_before_it_was_sent() {
        let mut observed = Observed::default();
        let now = Duration::from_secs(1);
        observed.poll_sent(Ticket(1));
        observed.poll_after_writes(now);
        assert!(!observed.polling().comes_at_once(now));
        observed.next_revision();
        observed.poll_after_writes(now);
        assert!(observed.polling().comes_at_once(now));
        assert!(observed.poll_answered(Ticket(2)).is_none());
        assert!(observed.poll_answered(Ticket(1)).is_some());
    }
}
