//! Tracks which devices and policies use settings that are unique in a tailnet: attribute types, addresses
//! and names.

use std::collections::BTreeSet;

use crate::{
    model::{NodeId, PolicyField},
    plan::{AttributeTypes, Policy, PolicyKey, TailnetWide, UniqueSetting},
    tailnet::{
        device_state::Noted, devices::Devices, dirty::Dirty, observed::Observed,
        policy_set::PolicySet,
    },
};

/// What the claims of a device rest on.
pub(super) struct Claims<'e> {
    pub observed: &'e Observed,
    pub policies: &'e PolicySet,
    pub devices: &'e mut Devices,
    pub tailnet_wide: &'e mut TailnetWide,
    pub dirty: &'e mut Dirty,
}

impl Claims<'_> {
    /// Notes the settings that a device has and those desired for it, once it is planned.
    pub(super) fn note_claims(&mut self, id: &NodeId) {
        let setting = self.setting_attributes(id);
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        let after = node.to_note(setting);
        let desired = node.unique_setting();
        // Only what differs counts: an unchanged plan must make no other device dirty.
        let before = node.note(after.clone());
        self.note_setting(&before.setting, &after.setting);
        self.note_types(id, &before, &after);
        self.unique_setting(id, desired);
    }

    /// Forgets the settings that a device has and those desired for it.
    pub(super) fn drop_claims(&mut self, id: &NodeId) {
        if let Some(node) = self.devices.get_mut(id) {
            let (before, nothing) = (node.note(Noted::default()), Noted::default());
            self.note_types(id, &before, &nothing);
            self.note_setting(&before.setting, &nothing.setting);
        }
        self.unique_setting(id, UniqueSetting::default());
    }

    fn note_types(&mut self, id: &NodeId, before: &Noted, after: &Noted) {
        let types = &mut self.tailnet_wide.types;
        let mut affected = types.note(id, &before.types, &after.types);
        affected.extend(types.note_refused(id, &before.refused, &after.refused));
        compare_again(self.policies, self.dirty, affected);
    }

    /// The policies that may set attributes of a device: their types count in the whole tailnet.
    fn setting_attributes(&self, id: &NodeId) -> BTreeSet<PolicyKey> {
        let (Some(node), Some(device)) = (self.devices.get(id), self.observed.index().get(id))
        else {
            return BTreeSet::new();
        };
        let guardrails = self.policies.guardrails();
        let setting = node.policies().iter().filter(|key| {
            // Nothing is sent for a policy that targets too many devices, so its types do not count.
            let entry = self
                .policies
                .get(key)
                .filter(|entry| !entry.targets().has_too_many());
            let policy = entry.and_then(|entry| entry.policy().as_deref().ok());
            policy.is_some_and(|policy| {
                let field = PolicyField::PostureAttributes;
                AttributeTypes::is_set_by(policy)
                    && guardrails.denies(policy, field, device).is_none()
            })
        });
        setting.cloned().collect()
    }

    fn note_setting(&mut self, before: &BTreeSet<PolicyKey>, after: &BTreeSet<PolicyKey>) {
        let mut affected = BTreeSet::new();
        for key in after.difference(before) {
            let entry = self.policies.get(key);
            if let Some(policy) = entry.and_then(|entry| entry.policy().as_deref().ok()) {
                affected.extend(self.tailnet_wide.types.gain_device(policy));
            }
        }
        for key in before.difference(after) {
            let entry = self.policies.get(key);
            let policy = entry.and_then(|entry| entry.policy().as_deref().ok());
            affected.extend(self.tailnet_wide.types.lose_device(key, policy));
        }
        compare_again(self.policies, self.dirty, affected);
    }

    fn unique_setting(&mut self, id: &NodeId, desired: UniqueSetting) {
        // Each change plans other devices again, so planning would not end if an equal one did.
        if self.tailnet_wide.unique.of(id) == desired {
            return;
        }
        let affected = self.tailnet_wide.unique.put(id, desired);
        self.dirty.plan_all(affected);
        reconsider_waiting(self.tailnet_wide, self.observed, self.dirty, id);
    }
}

/// Replaces the previous declaration of a policy by the new one.
pub(super) fn redeclare(
    tailnet_wide: &mut TailnetWide,
    policies: &PolicySet,
    dirty: &mut Dirty,
    before: Option<&Policy>,
    after: Option<&Policy>,
) {
    let affected = tailnet_wide.types.declare(before, after);
    compare_again(policies, dirty, affected);
}

/// Plans again the devices that wait for the address of this device.
pub(super) fn reconsider_waiting(
    tailnet_wide: &TailnetWide,
    observed: &Observed,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    let waiting = tailnet_wide.unique.waiting_for(id, observed.index());
    dirty.plan_all(waiting);
}

fn compare_again(policies: &PolicySet, dirty: &mut Dirty, affected: BTreeSet<PolicyKey>) {
    for key in affected {
        if let Some(entry) = policies.get(&key) {
            dirty.plan_all(entry.nodes().cloned());
        }
    }
}
