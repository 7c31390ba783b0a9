//! Invariants of every report, whatever devices lists lacked before.

use super::World;
use crate::{
    model::NodeId,
    plan::{Identity, PolicyKey, Target},
    tailnet::{PolicyReport, State},
};

impl World {
    /// A missing entry in lists alone never rebinds a policy to another device. A hash always names the
    /// same plan.
    pub fn check_report(&mut self, key: &PolicyKey, report: &PolicyReport) {
        if let Some(plan) = &report.held {
            let used = (report.uid.clone(), plan.hash.clone());
            assert!(
                !self.reported.used.contains(&used),
                "{key} holds {plan:?}, which was approved"
            );
            let made_of = [plan.changes, plan.devices];
            let frozen = self.reported.frozen.entry((key.clone(), plan.hash.clone()));
            let before = *frozen.or_insert(made_of);
            assert_eq!(
                before, made_of,
                "{key}: {} is made of another set",
                plan.hash
            );
        }
        check_causes(key, &report.state);
        let Some(bound) = &report.record.bound else {
            return;
        };
        let Some((policy, record)) = self.reported.policies.get(key) else {
            return;
        };
        let approved = self.policies.get(key);
        let approved = approved.is_some_and(|kept| kept.approvals.nodes.contains(&bound.node));
        let before = record.bound.as_ref();
        let before = before.filter(|before| before.named == bound.named);
        if let Some(before) = before.filter(|before| before.node != bound.node) {
            let gone = self.reported.gone.contains(&before.node);
            // An approval moves the policy to a successor of a device that is not connected.
            assert!(
                gone || approved,
                "{key} leaves {before:?} for {bound:?}, and nothing proves it gone"
            );
        }
        let Target::Device(target) = &policy.target else {
            return;
        };
        let Identity::Hostname(name) = &target.identity else {
            return;
        };
        let same_name = |id: &&NodeId| {
            let device = &self.reported.previous[*id];
            !device.external && device.hostname == *name
        };
        let previous = self.reported.previous.keys();
        let mut lacking = previous.filter(|id| !self.reported.devices.contains_key(*id));
        let other = lacking.find(|id| same_name(id) && **id != bound.node);
        let is_known = before.is_some() || target.identity.to_string() != bound.named;
        let gone = other.is_some_and(|id| self.reported.gone.contains(id));
        assert!(
            is_known || approved || gone || other.is_none(),
            "{key} is bound to {bound:?}, though one list alone lacks {other:?}"
        );
    }
}

/// Every difference of a device at rest is reported with its cause: what holds it, or what it waits for.
fn check_causes(key: &PolicyKey, state: &State) {
    let devices = match state {
        State::Bound(device) => std::slice::from_ref(&**device),
        State::Selector(fleet) => &fleet.details,
        _ => return,
    };
    for device in devices.iter().filter(|device| !device.working) {
        for difference in device.differences.iter().filter(|it| it.hold.is_none()) {
            let field = difference.change.field();
            assert!(
                device.waits.iter().any(|(of, _)| *of == field),
                "{key} does not say why {difference:?} is not sent: {device:?}"
            );
        }
        let mut conflicts = device.conflicts.iter();
        assert!(conflicts.all(|it| !it.declared.is_empty()), "{device:?}");
    }
}
