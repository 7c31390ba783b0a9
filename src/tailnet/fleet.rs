//! Policies about many devices: who belongs, what they own, and one short report of all.
//!
//! What happens to one device costs no walk over the others: its place in each fleet is judged by
//! itself, and a report, which does walk, is made once a fleet rests, when something must be kept,
//! and otherwise once for each list.

use std::collections::BTreeSet;

use super::{DeviceReport, Engine, evaluation::Verdict, node::Node};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Binding, Difference, ExpressionFault, PolicyKey},
};

/// Devices and differences that a report has in detail; its totals are exact.
pub const DETAILS: usize = 20;

/// How things stand with the devices of a policy about many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetReport {
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
    pub different: usize,
    /// Attributes that are no wish any more, as their expiry has passed.
    pub expired: BTreeSet<AttributeKey>,
    /// The devices of which its expression cannot tell.
    pub unjudged: Option<Unjudged>,
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
pub struct Unjudged {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// What people call that one.
    pub label: String,
    /// Why the expression cannot tell of that one.
    pub fault: ExpressionFault,
}

/// How much attention a device needs; the first needs most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Conflicted,
    Failed,
    Held,
    Different,
    InSync,
}

impl Engine {
    /// Takes a device into a fleet that it matches, or out of one that it no longer matches.
    pub(super) fn rematch(&mut self, id: &NodeId, key: &PolicyKey, verdict: Verdict) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        // In a new term, a device may leave with the first list: what is recorded of it counts.
        held.meet_devices(&self.fleet, self.polling.seen);
        let Some(Binding::Fleet(nodes)) = &mut held.binding else {
            return;
        };
        let (fits, is_unknown) = (verdict == Verdict::Matches, verdict == Verdict::Unknown);
        let moved = if fits {
            nodes.insert(id.clone())
        } else {
            nodes.remove(id)
        };
        let told = if is_unknown {
            held.unjudged.insert(id.clone())
        } else {
            held.unjudged.remove(id)
        };
        let left = !fits && !is_unknown && held.memory.holdings.nodes.contains(id);
        if moved || told {
            self.tell.insert(key.clone());
        }
        if moved && fits {
            self.take_up(id, key);
            self.hold_one(id, key);
        } else if moved {
            self.let_go(id, key);
            self.count_anew(key);
        }
        if left {
            self.part_with_one(id, key);
        }
        if let Some(held) = self.policies.get_mut(key) {
            let matches = fits || is_unknown;
            held.see_device(id, self.fleet.get(id), matches, self.polling.seen);
        }
    }

    /// What decides about who means a device may have changed.
    pub(super) fn reconsider(&mut self, id: &NodeId) {
        self.moved.insert(id.clone());
        if let Some(node) = self.nodes.get(id) {
            let single = node
                .policies
                .iter()
                .filter(|key| !self.fleets.contains(*key));
            self.unbound.extend(single.cloned());
        }
    }

    /// Whether the report of a fleet need not be made yet: more will happen at once, and nothing
    /// would be lost.
    pub(super) fn fleet_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(binding) = self
            .policies
            .get(key)
            .and_then(|held| held.binding.as_ref())
        else {
            return false;
        };
        let mut at_work = self.queues.at_work().chain(&self.unplaced);
        self.fleets.contains(key)
            && self.told_at == self.polling.seen
            && !self.stopping
            && self.outage().is_none()
            && !self.must_record(key)
            && at_work.any(|id| binding.holds(id) && self.is_working(id))
    }

    /// Whether something is to be done about a device; a look now and then is nothing.
    pub(super) fn is_working(&self, id: &NodeId) -> bool {
        let retries = self.nodes.get(id).is_some_and(Node::retries_quietly);
        let busy = !self.queues.is_resting(id) || self.unplaced.contains(id) || retries;
        let done = |node: &Node| node.is_done() && node.unconfirmed.is_empty();
        busy && !self.nodes.get(id).is_some_and(done)
    }

    pub(super) fn fleet_report(&self, key: &PolicyKey, binding: &Binding) -> FleetReport {
        let mut report = FleetReport::default();
        let mut ranked: BTreeSet<(Standing, &NodeId)> = BTreeSet::new();
        for id in binding.nodes() {
            let Some(node) = self.nodes.get(id) else {
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
        report.unjudged = self.unjudged(key);
        report.flapping = self.flapping_of(key);
        self.name_batch(key, &mut report.differences);
        report
    }

    fn unjudged(&self, key: &PolicyKey) -> Option<Unjudged> {
        let held = self.policies.get(key)?;
        let device = self.fleet.get(held.unjudged.first()?)?;
        Some(Unjudged {
            count: held.unjudged.len(),
            node: device.node_id.clone(),
            label: device.label().to_string(),
            fault: held.selector()?.0.judge(device).err()?,
        })
    }
}

impl FleetReport {
    /// Counts a device.
    fn add(&mut self, key: &PolicyKey, node: &Node) -> Standing {
        let plan = &node.plan;
        let own = || plan.of(key);
        let conflicted = plan.claims.conflicts.iter().any(|lost| lost.loser == *key);
        let failed = node.failures(key).next().is_some();
        let room = DETAILS - self.differences.len();
        self.differences.extend(plan.told(key).take(room));
        self.different += own().count();
        let claims = plan.claims.observed.get(key).unwrap_or(&plan.claims);
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
            Standing::Conflicted
        } else if failed {
            Standing::Failed
        } else if held {
            Standing::Held
        } else if own().next().is_some() || !plan.complete() {
            Standing::Different
        } else {
            self.in_sync += 1;
            Standing::InSync
        }
    }
}
