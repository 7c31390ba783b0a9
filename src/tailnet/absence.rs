//! Devices that are missing from the list, and when the engine gives one up.
//!
//! One incomplete list proves nothing. A device that is missing from a complete list stays in the snapshot as
//! it was last seen, so that everything that depends on its presence stays as it is: which device a policy is
//! bound to, which of two devices has a name, which devices a selector matches, what a frozen plan contains,
//! what must be cleared, and how many devices the limit counts. Nothing is sent to the device meanwhile. The
//! engine gives it up once two complete lists in a row lack it. If a policy concerns the device, the API must
//! also answer that there is no such device.

use std::{collections::BTreeMap, time::Duration};

use super::{Ticket, device_lookup::LookedUpDevices};
use crate::model::NodeId;

/// Lookups in flight at once: a list that lacks many devices must not keep other work waiting.
const MAX_LOOKUPS: usize = 2;

/// A device that the last list lacks.
#[derive(Debug)]
struct Missing {
    /// The number of the first list in a row that lacks it.
    since: u64,
    /// The number of the first list in a row that lacks it after a lookup found it, or else `since`.
    unproven_since: u64,
    /// Lookups that failed in a row.
    failures: u32,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    /// Nothing is proven. The device itself may be looked up from this time on.
    Open(Duration),
    /// The lookup of the device is in flight.
    Asked(Ticket),
    /// There is no such device.
    Gone,
}

/// The devices that the last list lacks: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Absence {
    missing: BTreeMap<NodeId, Missing>,
    /// The lookups in flight, including those whose result no longer matters.
    lookups: BTreeMap<Ticket, NodeId>,
    /// The devices that other controllers have looked up.
    pub looked_up: LookedUpDevices,
}

impl Absence {
    /// Whether the last list lacks a device: nothing is sent to it.
    pub fn is_missing(&self, id: &NodeId) -> bool {
        self.missing.contains_key(id)
    }

    /// Whether a device is proven to have left the tailnet.
    pub fn is_gone(&self, id: &NodeId) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| matches!(missing.proof, Proof::Gone))
    }

    /// Whether more than one list in a row lacks a device: statuses then report it.
    pub fn is_reported(&self, id: &NodeId, lists: u64) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| missing.since < lists)
    }

    /// Notes that a list lacks a device. Returns how many lists in a row lack it since it was last seen, in a list
    /// or by a lookup.
    pub fn note_absent(&mut self, id: &NodeId, lists: u64) -> u64 {
        let missing = self.missing.entry(id.clone()).or_insert(Missing {
            since: lists,
            unproven_since: lists,
            failures: 0,
            proof: Proof::Open(Duration::ZERO),
        });
        lists.saturating_sub(missing.unproven_since) + 1
    }

    /// Notes that a list has a device. Returns whether the list before lacked it.
    pub fn note_present(&mut self, id: &NodeId) -> bool {
        self.missing.remove(id).is_some()
    }

    /// Notes the proof that a device is gone.
    pub fn prove(&mut self, id: &NodeId, lists: u64) {
        self.note_absent(id, lists);
        if let Some(missing) = self.missing.get_mut(id) {
            missing.proof = Proof::Gone;
        }
    }

    /// Forgets which devices were missing, and starts to count lists again.
    pub fn restart(&mut self) {
        // Not the lookups: each of those in flight still uses a request.
        self.missing.clear();
    }

    /// The lookup that is due first. Two lists must lack the device.
    pub fn next(&self, lists: u64) -> Option<(Duration, &NodeId)> {
        // Lookups whose answer no longer matters count too: they still use a request.
        if self.lookups.len() >= MAX_LOOKUPS {
            return None;
        }
        let missing = self.missing.iter();
        let open = missing.filter_map(|(id, missing)| match missing.proof {
            // One list proves nothing, so the first one that lacks a device starts no lookup.
            Proof::Open(from) if missing.since < lists => Some((from, id)),
            _ => None,
        });
        // The one that has waited longest, so that no device waits for ever.
        open.min()
    }

    pub fn ask(&mut self, id: NodeId, ticket: Ticket) {
        if let Some(missing) = self.missing.get_mut(&id) {
            missing.proof = Proof::Asked(ticket);
        }
        self.lookups.insert(ticket, id);
    }

    /// Forgets the devices that need not be kept.
    pub fn retain(&mut self, kept: impl Fn(&NodeId) -> bool) {
        self.missing.retain(|id, _| kept(id));
    }

    /// A request was answered. Returns the device, if it was a lookup, and whether its answer still matters: the
    /// device may be in the list again.
    pub fn lookup_answered(&mut self, ticket: Ticket) -> Option<(NodeId, bool)> {
        let id = self.lookups.remove(&ticket)?;
        // A device that was listed and is missing again has a new lookup; the old answer must not count.
        let matters = self.is_waited_for(&id, ticket);
        Some((id, matters))
    }

    /// The lookup has found the device: it is looked up again at this time. `lists`: how many there were.
    pub fn lookup_found(&mut self, id: &NodeId, lists: u64, again: Duration) {
        if let Some(missing) = self.missing.get_mut(id) {
            // What the lists before lacked proves nothing any longer, even if no policy names the device now.
            missing.unproven_since = lists + 1;
            missing.failures = 0;
            missing.proof = Proof::Open(again);
        }
    }

    /// The lookup has failed. `pause`: how long to wait after so many failures in a row.
    pub fn lookup_failed(
        &mut self,
        id: &NodeId,
        pause: impl FnOnce(u32) -> Duration,
        now: Duration,
    ) {
        if let Some(missing) = self.missing.get_mut(id) {
            missing.failures = missing.failures.saturating_add(1);
            missing.proof = Proof::Open(now + pause(missing.failures));
        }
    }

    /// Takes back a request that was not sent. Returns whether it was a lookup.
    pub fn take_back(&mut self, ticket: Ticket, now: Duration) -> bool {
        let Some(id) = self.lookups.remove(&ticket) else {
            return false;
        };
        if self.is_waited_for(&id, ticket)
            && let Some(missing) = self.missing.get_mut(&id)
        {
            missing.proof = Proof::Open(now);
        }
        true
    }

    /// Whether the engine still waits for the answer of this lookup.
    fn is_waited_for(&self, id: &NodeId, ticket: Ticket) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|it| matches!(it.proof, Proof::Asked(asked) if asked == ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        "n1CNTRL".parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_device_is_looked_up_and_reported_only_after_two_lists_lack_it() {
        let mut absence = Absence::default();
        assert_eq!(absence.note_absent(&node(), 3), 1);
        assert!(absence.is_missing(&node()) && !absence.is_reported(&node(), 3));
        assert_eq!(absence.next(3), None);
        assert_eq!(absence.note_absent(&node(), 4), 2);
        assert!(absence.is_reported(&node(), 4) && absence.next(4).is_some());
        assert!(!absence.is_gone(&node()));
        assert!(absence.note_present(&node()));
        assert!(!absence.is_missing(&node()) && !absence.note_present(&node()));
    }

    #[test]
    fn lists_before_a_lookup_that_finds_a_device_do_not_count() {
        let mut absence = Absence::default();
        assert_eq!(absence.note_absent(&node(), 3), 1);
        assert_eq!(absence.note_absent(&node(), 4), 2);
        absence.lookup_found(&node(), 4, at(60));
        assert_eq!(absence.note_absent(&node(), 5), 1);
        assert!(absence.is_reported(&node(), 5));
        assert_eq!(absence.note_absent(&node(), 6), 2);
    }

    #[test]
    fn a_failed_lookup_is_repeated_after_a_pause() {
        let mut absence = Absence::default();
        absence.note_absent(&node(), 1);
        absence.ask(node(), Ticket(1));
        assert_eq!(absence.next(2), None);
        assert_eq!(absence.lookup_answered(Ticket(1)), Some((node(), true)));
        absence.lookup_failed(&node(), |failures| at(failures.into()), at(10));
        assert_eq!(absence.next(2), Some((at(11), &node())));
    }

    #[test]
    fn the_answer_of_a_lookup_does_not_matter_once_the_device_is_listed_again() {
        let mut absence = Absence::default();
        absence.note_absent(&node(), 1);
        absence.ask(node(), Ticket(1));
        absence.note_present(&node());
        assert_eq!(absence.lookup_answered(Ticket(1)), Some((node(), false)));
        assert_eq!(absence.lookup_answered(Ticket(1)), None);
    }

    #[test]
    fn a_lookup_that_was_not_sent_is_due_at_once() {
        let mut absence = Absence::default();
        absence.note_absent(&node(), 1);
        absence.ask(node(), Ticket(1));
        assert!(absence.take_back(Ticket(1), at(5)) && !absence.take_back(Ticket(1), at(5)));
        assert_eq!(absence.next(2), Some((at(5), &node())));
    }
}
