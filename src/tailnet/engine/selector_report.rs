//! The report of a policy with a selector.
//!
//! A change of one device costs no walk over the others: each is matched alone. A report does walk over all
//! devices, so it is made once the devices are idle, when a record is needed, and otherwise once for each
//! list.

use std::collections::BTreeSet;

use super::{activity::is_working, policy_report::Reports, reports::name_frozen_plan};
use crate::{
    model::NodeId,
    plan::{Binding, PolicyKey, Unmatched},
    tailnet::{
        DETAILS, DeviceReport, FlappingDevices, SelectorErrors, SelectorReport,
        device_state::DeviceState, matching::Matching, observed::Observed,
        policy_entry::PolicyEntry, policy_set::PolicySet,
    },
};

impl Reports<'_> {
    pub(super) fn selector_report(&self, key: &PolicyKey, binding: &Binding) -> SelectorReport {
        let mut report = SelectorReport::default();
        let mut ranked: BTreeSet<(DeviceOutcome, &NodeId)> = BTreeSet::new();
        for id in binding.nodes() {
            let Some(node) = self.devices.get(id) else {
                continue;
            };
            let shown = report.differences.len();
            let outcome = report.add(key, node);
            // A report says only of the differences that it shows what they wait for.
            if report.differences.len() > shown {
                let waits = self.unsent(key, id).into_iter();
                let waits = waits.map(|(field, why)| ((id.clone(), field), why));
                report.waits.extend(waits);
            }
            self.add_overridden(&mut report, key, id);
            report.working += usize::from(is_working(self.devices, self.queues, self.dirty, id));
            ranked.insert((outcome, id));
            // While it grows: a selector can match ten thousand devices.
            if ranked.len() > DETAILS {
                ranked.pop_last();
            }
        }
        let devices = ranked.into_iter().filter_map(|(_, id)| {
            let working = is_working(self.devices, self.queues, self.dirty, id);
            let device = self.device_report(key, id)?;
            Some(DeviceReport { working, ..device })
        });
        report.details = devices.collect();
        report.selector_errors = selector_errors(self.observed, self.policies, key);
        report.flapping = flapping_of(self.observed, self.matching, key);
        // With a match the selector is no mistake, so nobody needs to know what else there is.
        if report.matched == 0 {
            report.unmatched = unmatched(self.observed, self.policies, key);
        }
        name_frozen_plan(&self.limit(), key, &mut report.differences);
        let impacts = self.impacts(&report.differences);
        report.impacts = impacts
            .map(|(node, field, words)| ((node, field), words))
            .collect();
        report
    }

    fn add_overridden(&self, report: &mut SelectorReport, key: &PolicyKey, id: &NodeId) {
        let (Some(node), Some(device)) = (self.devices.get(id), self.observed.index().get(id))
        else {
            return;
        };
        for conflict in node.plan().conflicts_of(key) {
            report.overridden_total += 1;
            if report.overridden.len() < DETAILS {
                let label = device.label().to_string();
                report
                    .overridden
                    .push((id.clone(), label, conflict.clone()));
            }
        }
    }
}

/// Among the devices that the policy may know of.
fn unmatched(observed: &Observed, policies: &PolicySet, key: &PolicyKey) -> Vec<Unmatched> {
    let entry = policies.get(key);
    let Some((selector, allowance)) = entry.and_then(PolicyEntry::selector) else {
        return Vec::new();
    };
    let devices = observed.index().devices();
    Unmatched::of(
        selector,
        devices.filter(|device| allowance.is_about(device)),
    )
}

fn selector_errors(
    observed: &Observed,
    policies: &PolicySet,
    key: &PolicyKey,
) -> Option<SelectorErrors> {
    let entry = policies.get(key)?;
    let device = observed
        .index()
        .get(entry.targets().selector_errors().first()?)?;
    Some(SelectorErrors {
        count: entry.targets().selector_errors().len(),
        node: device.node_id.clone(),
        label: device.label().to_string(),
        error: entry.selector()?.0.check(device).err()?,
    })
}

fn flapping_of(
    observed: &Observed,
    matching: &Matching,
    key: &PolicyKey,
) -> Option<FlappingDevices> {
    let mut flapping = matching.flapping().of(key);
    let device = observed.index().get(flapping.next()?)?;
    Some(FlappingDevices {
        count: flapping.count() + 1,
        node: device.node_id.clone(),
        label: device.label().to_string(),
    })
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
        let conflicted = plan.conflicts_of(key).next().is_some();
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
        self.held_changes += own().filter(|difference| difference.is_held()).count();
        let held = own().any(|difference| difference.hold.is_some());
        self.held += usize::from(held);
        self.failed += usize::from(failed);
        let overridden = plan.conflicts_of(key).count();
        self.pending.add_device(own(), overridden, |field| {
            let mut failures = node.failures(key);
            failures.find_map(|(of, failure)| {
                let concerns = of.as_ref().is_none_or(|of| of == field);
                concerns.then_some(failure.reason)
            })
        });
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
