//! Policies with a selector: their devices, and one short report of all.
//!
//! A change of one device costs no walk over the others: each is matched alone. A report does walk over all
//! devices, so it is made once the devices are idle, when a record is needed, and otherwise once for each
//! list.

use std::collections::BTreeSet;

use super::{DeviceReport, Engine, device_state::DeviceState, evaluation::Comparison};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Binding, Difference, ExpressionError, PolicyKey},
};

/// The number of devices and differences that a report details; its totals are exact.
pub const DETAILS: usize = 20;

/// The state of the devices of a policy with a selector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SelectorReport {
    /// The number of matching devices.
    pub matched: usize,
    /// Those of them that are in sync.
    pub in_sync: usize,
    /// Those with work in progress.
    pub working: usize,
    /// Those that have not been read completely.
    pub unread: usize,
    /// Those with a field that another policy overrides.
    pub conflicted: usize,
    /// Those with a held change.
    pub held: usize,
    /// Those with a failure.
    pub failed: usize,
    /// Some devices; those that need attention most come first.
    pub details: Vec<DeviceReport>,
    /// Some differences, in the order of the devices.
    pub differences: Vec<Difference>,
    /// The number of differences.
    pub out_of_sync: usize,
    /// Attributes that are no longer desired, as their expiry has passed.
    pub expired: BTreeSet<AttributeKey>,
    /// The devices on which its expression fails.
    pub selector_errors: Option<SelectorErrors>,
    /// The devices that keep joining and leaving it by what they report about themselves.
    pub flapping: Option<FlappingDevices>,
}

/// Devices that keep joining and leaving a selector by what they report about themselves: for now they stay
/// in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlappingDevices {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
}

/// Devices on which the expression of a selector fails; the policy does not target them.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectorErrors {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// The error of the expression on that device.
    pub error: ExpressionError,
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

impl Engine {
    /// Adds a device to the devices of a selector that it matches, or removes it.
    pub(super) fn rematch(&mut self, id: &NodeId, key: &PolicyKey, comparison: Comparison) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        // In a new term, a device may leave with the first list: its record must be restored before.
        entry.meet_devices(self.observed.index(), self.observed.lists());
        let Some(Binding::Selector(nodes)) = &mut entry.binding else {
            return;
        };
        let (matches, is_unknown) = (
            comparison == Comparison::Matches,
            comparison == Comparison::Unknown,
        );
        let has_changed = if matches {
            nodes.insert(id.clone())
        } else {
            nodes.remove(id)
        };
        let reported = if is_unknown {
            entry.selector_errors.insert(id.clone())
        } else {
            entry.selector_errors.remove(id)
        };
        let left = !matches && !is_unknown && entry.needed_record.managed.nodes.contains(id);
        if has_changed || reported {
            self.dirty.report(key);
        }
        if has_changed && matches {
            self.adopt_device(id, key);
            self.hold_one(id, key);
        } else if has_changed {
            self.release_binding(id, key);
            self.recount(key);
        }
        if left {
            self.release_device(id, key);
        }
        if let Some(entry) = self.policies.get_mut(key) {
            let is_kept = matches || is_unknown;
            entry.see_device(
                id,
                self.observed.index().get(id),
                is_kept,
                self.observed.lists(),
            );
        }
    }

    /// Marks a device for matching, as its facts may have changed.
    pub(super) fn reconsider(&mut self, id: &NodeId) {
        self.dirty.rematch(id);
        if let Some(node) = self.devices.get(id) {
            let single = node
                .policies
                .iter()
                .filter(|key| !self.policies.has_selector(key));
            self.dirty.rebind_all(single.cloned());
        }
    }

    /// Whether the report of a policy with a selector can wait: more happens at once, and no record depends
    /// on it.
    pub(super) fn selector_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(binding) = self
            .policies
            .get(key)
            .and_then(|entry| entry.binding.as_ref())
        else {
            return false;
        };
        let mut at_work = self.queues.at_work().chain(self.dirty.awaiting_step());
        self.policies.has_selector(key)
            && self.statuses.covers(self.observed.lists())
            && !self.gate.is_stopping()
            && self.gate.outage(&self.observed).is_none()
            && !self.must_record(key)
            && at_work.any(|id| binding.holds(id) && self.is_working(id))
    }

    /// Whether a device has work in progress; a regular read is none.
    pub(super) fn is_working(&self, id: &NodeId) -> bool {
        let retries = self
            .devices
            .get(id)
            .is_some_and(DeviceState::retries_quietly);
        let busy = !self.queues.is_idle(id) || self.dirty.awaits_step(id) || retries;
        let done = |node: &DeviceState| node.is_done() && node.unverified.is_empty();
        busy && !self.devices.get(id).is_some_and(done)
    }

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
        self.name_frozen_plan(key, &mut report.differences);
        report
    }

    fn selector_errors(&self, key: &PolicyKey) -> Option<SelectorErrors> {
        let entry = self.policies.get(key)?;
        let device = self.observed.index().get(entry.selector_errors.first()?)?;
        Some(SelectorErrors {
            count: entry.selector_errors.len(),
            node: device.node_id.clone(),
            label: device.label().to_string(),
            error: entry.selector()?.0.check(device).err()?,
        })
    }
}

impl SelectorReport {
    /// Counts a device.
    fn add(&mut self, key: &PolicyKey, node: &DeviceState) -> DeviceOutcome {
        let plan = &node.plan;
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
