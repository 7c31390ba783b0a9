//! The report of a policy with a selector.
//!
//! A change of one device costs no walk over the others: each is matched alone. A report does walk over all
//! devices, so it is made once the devices are idle, when a record is needed, and otherwise once for each
//! list.

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    model::NodeId,
    plan::{Binding, PolicyKey, Unmatched},
    tailnet::{
        DETAILS, DeviceReport, FlappingDevices, SelectorErrors, SelectorReport,
        device_state::DeviceState, policy_entry::PolicyEntry,
    },
};

impl Engine {
    pub(super) fn selector_report(&self, key: &PolicyKey, binding: &Binding) -> SelectorReport {
        let mut report = SelectorReport::default();
        let mut ranked: BTreeSet<(DeviceOutcome, &NodeId)> = BTreeSet::new();
        for id in binding.nodes() {
            let Some(node) = self.devices.get(id) else {
                continue;
            };
            let outcome = report.add(key, node);
            report.working += usize::from(self.is_working(id));
            ranked.insert((outcome, id));
            // While it grows: a selector can match ten thousand devices.
            if ranked.len() > DETAILS {
                ranked.pop_last();
            }
        }
        let devices = ranked.into_iter().filter_map(|(_, id)| {
            let working = self.is_working(id);
            let device = self.device_report(key, id)?;
            Some(DeviceReport { working, ..device })
        });
        report.details = devices.collect();
        report.selector_errors = self.selector_errors(key);
        report.flapping = self.flapping_of(key);
        if report.matched == 0 {
            report.unmatched = self.unmatched(key);
        }
        self.name_frozen_plan(key, &mut report.differences);
        report
    }

    /// Among the devices that the policy may know of.
    fn unmatched(&self, key: &PolicyKey) -> Vec<Unmatched> {
        let entry = self.policies.get(key);
        let Some((selector, allowance)) = entry.and_then(PolicyEntry::selector) else {
            return Vec::new();
        };
        let devices = self.observed.index().devices();
        Unmatched::of(
            selector,
            devices.filter(|device| allowance.is_about(device)),
        )
    }

    fn selector_errors(&self, key: &PolicyKey) -> Option<SelectorErrors> {
        let entry = self.policies.get(key)?;
        let device = self
            .observed
            .index()
            .get(entry.targets().selector_errors().first()?)?;
        Some(SelectorErrors {
            count: entry.targets().selector_errors().len(),
            node: device.node_id.clone(),
            label: device.label().to_string(),
            error: entry.selector()?.0.check(device).err()?,
        })
    }

    fn flapping_of(&self, key: &PolicyKey) -> Option<FlappingDevices> {
        let mut flapping = self.matching.flapping().of(key);
        let device = self.observed.index().get(flapping.next()?)?;
        Some(FlappingDevices {
            count: flapping.count() + 1,
            node: device.node_id.clone(),
            label: device.label().to_string(),
        })
    }
}

/// How much attention a device needs, in descending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DeviceOutcome {
    Conflicted,
    Failed,
    Held,
    OutOfSync,
    InSync,
}

impl SelectorReport {
    /// Counts a device.
    fn add(&mut self, key: &PolicyKey, node: &DeviceState) -> DeviceOutcome {
        let plan = node.plan();
        let own = || plan.of(key);
        let conflicted = plan
            .owners
            .conflicts
            .iter()
            .any(|conflict| conflict.overridden == *key);
        let failed = node.failures(key).next().is_some();
        let room = DETAILS - self.differences.len();
        self.differences.extend(plan.disclosed(key).take(room));
        self.out_of_sync += own().count();
        let claims = plan.owners.observed.get(key).unwrap_or(&plan.owners);
        let expired = claims.expired.iter().filter(|(_, of)| of == key);
        self.expired
            .extend(expired.map(|(attribute, _)| attribute.clone()));
        self.matched += 1;
        self.unread += usize::from(!plan.complete());
        self.conflicted += usize::from(conflicted);
        let held = own().any(|difference| difference.hold.is_some());
        self.held += usize::from(held);
        self.failed += usize::from(failed);
        if conflicted {
            DeviceOutcome::Conflicted
        } else if failed {
            DeviceOutcome::Failed
        } else if held {
            DeviceOutcome::Held
        } else if own().next().is_some() || !plan.complete() {
            DeviceOutcome::OutOfSync
        } else {
            self.in_sync += 1;
            DeviceOutcome::InSync
        }
    }
}
