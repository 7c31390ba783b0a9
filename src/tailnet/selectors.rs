//! Policies about many devices: who belongs, what they own, and one short report of all.
//!
//! What happens to one device costs no walk over the others: its place in each fleet is judged by
//! itself, and a report, which does walk, is made once a fleet rests, when something must be kept,
//! and otherwise once for each list.

use std::collections::BTreeSet;

use super::{DeviceReport, Engine, device_state::DeviceState, evaluation::Comparison};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Binding, Difference, ExpressionError, PolicyKey},
};

/// Devices and differences that a report has in detail; its totals are exact.
pub const DETAILS: usize = 20;

/// How things stand with the devices of a policy about many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SelectorReport {
    /// The devices that fit.
    pub matched: usize,
    /// Those of them that are as declared.
    pub in_sync: usize,
    /// Those about which something is under way.
    pub working: usize,
    /// Those of which not everything has been read.
    pub unread: usize,
    /// Those for which the policy lost a field to another one.
    pub conflicted: usize,
    /// Those for which something is held.
    pub held: usize,
    /// Those for which something failed.
    pub failed: usize,
    /// Some devices: first what needs attention most.
    pub details: Vec<DeviceReport>,
    /// Some differences, in the order of the devices.
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub out_of_sync: usize,
    /// Attributes that are no wish any more, as their expiry has passed.
    pub expired: BTreeSet<AttributeKey>,
    /// The devices of which its expression cannot tell.
    pub selector_errors: Option<SelectorErrors>,
    /// The devices that keep joining and leaving it by what they claim.
    pub flapping: Option<FlappingDevices>,
}

/// Devices that keep joining and leaving a fleet by what they claim of themselves: for now they stay as they
/// are, in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlappingDevices {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// What people call that one.
    pub label: String,
}

/// Devices of which the expression of a selector cannot tell; they are not meant.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectorErrors {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// What people call that one.
    pub label: String,
    /// Why the expression cannot tell of that one.
    pub error: ExpressionError,
}

/// How much attention a device needs; the first needs most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DeviceOutcome {
    Conflicted,
    Failed,
    Held,
    OutOfSync,
    InSync,
}

impl Engine {
    /// Takes a device into a fleet that it matches, or out of one that it no longer matches.
    pub(super) fn rematch(&mut self, id: &NodeId, key: &PolicyKey, verdict: Comparison) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        // In a new term, a device may leave with the first list: what is recorded of it counts.
        held.meet_devices(&self.index, self.polling.seen);
        let Some(Binding::Selector(nodes)) = &mut held.binding else {
            return;
        };
        let (fits, is_unknown) = (
            verdict == Comparison::Matches,
            verdict == Comparison::Unknown,
        );
        let moved = if fits {
            nodes.insert(id.clone())
        } else {
            nodes.remove(id)
        };
        let reported = if is_unknown {
            held.selector_errors.insert(id.clone())
        } else {
            held.selector_errors.remove(id)
        };
        let left = !fits && !is_unknown && held.needed_record.managed.nodes.contains(id);
        if moved || reported {
            self.dirty_statuses.insert(key.clone());
        }
        if moved && fits {
            self.adopt_device(id, key);
            self.hold_one(id, key);
        } else if moved {
            self.release_binding(id, key);
            self.recount(key);
        }
        if left {
            self.release_device(id, key);
        }
        if let Some(held) = self.policies.get_mut(key) {
            let matches = fits || is_unknown;
            held.see_device(id, self.index.get(id), matches, self.polling.seen);
        }
    }

    /// What decides about who means a device may have changed.
    pub(super) fn reconsider(&mut self, id: &NodeId) {
        self.dirty_matches.insert(id.clone());
        if let Some(node) = self.devices.get(id) {
            let single = node
                .policies
                .iter()
                .filter(|key| !self.selector_policies.contains(*key));
            self.dirty_targets.extend(single.cloned());
        }
    }

    /// Whether the report of a fleet need not be made yet: more will happen at once, and nothing
    /// would be lost.
    pub(super) fn selector_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(binding) = self
            .policies
            .get(key)
            .and_then(|held| held.binding.as_ref())
        else {
            return false;
        };
        let mut at_work = self.queues.at_work().chain(&self.dirty_steps);
        self.selector_policies.contains(key)
            && self.reported_at == self.polling.seen
            && !self.stopping
            && self.outage().is_none()
            && !self.must_record(key)
            && at_work.any(|id| binding.holds(id) && self.is_working(id))
    }

    /// Whether something is to be done about a device; a look now and then is nothing.
    pub(super) fn is_working(&self, id: &NodeId) -> bool {
        let retries = self
            .devices
            .get(id)
            .is_some_and(DeviceState::retries_quietly);
        let busy = !self.queues.is_idle(id) || self.dirty_steps.contains(id) || retries;
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
            let standing = report.add(key, node);
            report.working += usize::from(self.is_working(id));
            ranked.insert((standing, id));
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
        let held = self.policies.get(key)?;
        let device = self.index.get(held.selector_errors.first()?)?;
        Some(SelectorErrors {
            count: held.selector_errors.len(),
            node: device.node_id.clone(),
            label: device.label().to_string(),
            error: held.selector()?.0.check(device).err()?,
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
            .any(|lost| lost.overridden == *key);
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
