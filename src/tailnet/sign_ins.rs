//! Devices that someone has signed in on again: they keep their nodeId, lose their tags, and belong to that
//! person.
//!
//! Such a device leaves the policies that select it by its tags or its user, and it may come back a moment
//! later: an admin gives the tags again. Under `Clear`, the policies that lose it clear nothing there until
//! further lists have confirmed the new owner.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Device, NodeId},
    plan::{DeviceIndex, Owner},
};

/// The number of lists in a row that must confirm a new owner, after the answer that showed it first.
const CONFIRMATIONS: u8 = 2;

/// The devices that someone has signed in on again, with the number of lists in a row that have confirmed it
/// since: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SignIns(BTreeMap<NodeId, u8>);

impl SignIns {
    /// Compares a device with what was known of it before.
    pub fn compare(&mut self, known: &Device, device: &Device) {
        if (&known.tags, &known.user) == (&device.tags, &device.user) {
            return;
        }
        let is_known = |device| Owner::unknown(device).is_empty();
        // An owner that cannot be read is no other owner (docs/decisions/0027).
        if !is_known(known) || !is_known(device) || Owner::of(known) == Owner::of(device) {
            return;
        }
        match Owner::of(device) {
            Owner::User(_) => {
                self.0.insert(device.node_id.clone(), 0);
            }
            // Only an admin or a policy gives tags.
            Owner::Tagged => {
                self.0.remove(&device.node_id);
            }
        }
    }

    /// Notes a device whose owner may have changed while nobody looked.
    pub fn suspect(&mut self, id: &NodeId) {
        self.0.entry(id.clone()).or_default();
    }

    /// Whether the new owner of a device is known, but not confirmed.
    pub fn is_unconfirmed(&self, id: &NodeId) -> bool {
        self.0.get(id).is_some_and(|lists| *lists < CONFIRMATIONS)
    }

    /// Whether someone has signed in on a device, as far as is known, confirmed or not.
    pub fn is_noted(&self, id: &NodeId) -> bool {
        self.0.contains_key(id)
    }

    /// Takes the devices of a list, as it reports them. Returns the devices whose new owner is confirmed now.
    pub fn take_list(&mut self, listed: &[Device]) -> Vec<NodeId> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let of_users = listed.iter().filter(|device| {
            Owner::unknown(device).is_empty() && matches!(Owner::of(device), Owner::User(_))
        });
        let confirming: BTreeSet<&NodeId> = of_users.map(|device| &device.node_id).collect();
        let mut confirmed = Vec::new();
        for (id, lists) in &mut self.0 {
            match (*lists < CONFIRMATIONS, confirming.contains(id)) {
                (false, _) => {}
                // In a row: a list that shows another owner, or none, starts the count again.
                (true, false) => *lists = 0,
                (true, true) => {
                    *lists += 1;
                    if *lists == CONFIRMATIONS {
                        confirmed.push(id.clone());
                    }
                }
            }
        }
        confirmed
    }

    /// Forgets the devices that are no longer in the tailnet.
    pub fn retain(&mut self, index: &DeviceIndex) {
        self.0.retain(|id, _| index.get(id).is_some());
    }

    /// Forgets everything: lists are counted again.
    pub fn restart(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(tags: &[&str], user: &str) -> Device {
        let tags = tags.iter().map(|tag| tag.parse().unwrap());
        Device {
            tags: tags.collect(),
            user: user.to_owned(),
            ..Device::plain("n1CNTRL".parse().unwrap())
        }
    }

    #[test]
    fn two_further_lists_in_a_row_confirm_a_new_owner() {
        let (before, after) = (device(&["tag:a"], ""), device(&[], "eve@example.com"));
        let id = &before.node_id;
        let mut sign_ins = SignIns::default();
        sign_ins.compare(&before, &before);
        assert!(!sign_ins.is_unconfirmed(id));
        sign_ins.compare(&before, &after);
        assert!(sign_ins.is_unconfirmed(id));
        let list = std::slice::from_ref(&after);
        assert_eq!(sign_ins.take_list(list), []);
        // A list that lacks the device, or has its former owner, confirms nothing.
        assert_eq!(sign_ins.take_list(&[]), []);
        assert_eq!(sign_ins.take_list(list), []);
        assert_eq!(sign_ins.take_list(std::slice::from_ref(&before)), []);
        assert_eq!(sign_ins.take_list(list), []);
        assert_eq!(sign_ins.take_list(list), std::slice::from_ref(id));
        assert!(sign_ins.is_noted(id) && !sign_ins.is_unconfirmed(id));
        assert_eq!(sign_ins.take_list(list), []);
        sign_ins.compare(&after, &before);
        assert!(!sign_ins.is_noted(id));
    }

    #[test]
    fn a_device_that_gets_its_first_tag_or_has_another_hostname_has_no_new_owner() {
        let (before, after) = (device(&[], "amelie@example.com"), device(&["tag:a"], ""));
        let mut sign_ins = SignIns::default();
        sign_ins.compare(&before, &after);
        sign_ins.compare(&after, &device(&["tag:b"], ""));
        let renamed = Device {
            hostname: "other".to_owned(),
            ..before.clone()
        };
        sign_ins.compare(&before, &renamed);
        assert!(!sign_ins.is_unconfirmed(&before.node_id));
    }
}
