use std::time::Duration;

use jiff::Timestamp;

use super::{Engine, Failure, node::Step};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Binding, Conflict, Difference, Field, Memory, PolicyKey},
};

/// How things stand with one policy; its status is derived from it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyReport {
    /// The generation of the spec that it is about.
    pub generation: i64,
    /// What must be there after a restart.
    pub memory: Memory,
    /// When a change was last made for it, by this process.
    pub changed_at: Option<Timestamp>,
    /// How things stand.
    pub state: State,
}

/// How things stand with one policy.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It cannot be read; all its faults.
    Invalid(Vec<String>),
    /// The first list has not come yet.
    Starting,
    /// The tailnet cannot be asked.
    Unavailable(Failure),
    /// It means no device now.
    Unbound {
        /// How the manifest names the device.
        named: String,
        /// What was found instead.
        binding: Binding,
    },
    /// It holds a device.
    Bound(Box<DeviceReport>),
}

/// How things stand with the device of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// The device.
    pub node: NodeId,
    /// What people call it.
    pub label: String,
    /// Work is under way.
    pub working: bool,
    /// Attributes or routes that are wished for have not been read yet.
    pub unread: bool,
    /// What differs for this policy.
    pub differences: Vec<Difference>,
    /// What it lost to others.
    pub conflicts: Vec<Conflict>,
    /// Attributes that are no wish any more, as their expiry has passed.
    pub expired: Vec<AttributeKey>,
    /// What failed, by field; looks that failed have none.
    pub failures: Vec<(Option<Field>, Failure)>,
}

/// How things stand with a tailnet.
#[derive(Debug, Clone, PartialEq)]
pub struct TailnetReport {
    /// Why it cannot be asked, if so.
    pub failure: Option<Failure>,
    /// The domain of its devices' names, once the list has been seen: which tailnet it is.
    pub domain: Option<String>,
    /// Its own devices, once the list has been seen.
    pub devices: Option<usize>,
    /// The policies that name it.
    pub policies: usize,
    /// How often attributes are read, as the request budget allows.
    pub attributes_interval: Duration,
}

impl Engine {
    /// The report of a policy; `None` while work goes on and nothing needs to be kept for it: the
    /// last report then still tells the truth of a moment ago.
    pub(super) fn report(&self, key: &PolicyKey, now: Duration) -> Option<PolicyReport> {
        let held = self.policies.get(key)?;
        let state = match &held.policy {
            Err(faults) => State::Invalid(faults.clone()),
            Ok(policy) => {
                if let Some(failure) = self.outage() {
                    State::Unavailable(failure.clone())
                } else if let Some(binding) = &held.binding {
                    match binding
                        .node()
                        .and_then(|node| self.device_report(key, node, now))
                    {
                        Some(report) if self.can_wait(key, &report) => return None,
                        Some(report) => State::Bound(Box::new(report)),
                        None => State::Unbound {
                            named: policy.target.identity.to_string(),
                            binding: binding.clone(),
                        },
                    }
                } else {
                    State::Starting
                }
            }
        };
        Some(PolicyReport {
            generation: held.generation,
            memory: held.memory.clone(),
            changed_at: held.changed_at,
            state,
        })
    }

    fn can_wait(&self, key: &PolicyKey, report: &DeviceReport) -> bool {
        report.working && report.failures.is_empty() && self.is_remembered(key)
    }

    fn device_report(&self, key: &PolicyKey, id: &NodeId, now: Duration) -> Option<DeviceReport> {
        let node = self.nodes.get(id)?;
        let device = self.fleet.get(id)?;
        let step = node.next_step(id, self.all_remembered(node), self.refresh(), now);
        let plan = &node.plan;
        let own: Vec<Difference> = plan
            .differences
            .iter()
            .filter(|difference| difference.owner == *key)
            .cloned()
            .collect();
        let of_fields = node.setbacks.iter().filter(|(field, _)| {
            own.iter()
                .any(|difference| difference.change.field() == **field)
        });
        let of_looks = node.look_setback.iter().chain(&node.attributes_setback);
        Some(DeviceReport {
            node: id.clone(),
            label: device.label().to_string(),
            working: !matches!(step, Step::Rest(_)),
            unread: !plan.complete(),
            conflicts: plan
                .claims
                .conflicts
                .iter()
                .filter(|lost| lost.loser == *key)
                .cloned()
                .collect(),
            expired: plan
                .claims
                .expired
                .iter()
                .filter(|(_, owner)| *owner == key)
                .map(|(attribute, _)| attribute.clone())
                .collect(),
            failures: of_looks
                .map(|setback| (None, setback.failure.clone()))
                .chain(
                    of_fields
                        .map(|(field, setback)| (Some(field.clone()), setback.failure.clone())),
                )
                .collect(),
            differences: own,
        })
    }

    pub(super) fn tailnet_report(&self) -> TailnetReport {
        let failure = self.connection.as_ref().err().or(self.polling.failure());
        TailnetReport {
            failure: failure.cloned(),
            domain: self.fleet.domain(),
            devices: (self.polling.seen > 0).then(|| self.fleet.own_count()),
            policies: self.policies.len(),
            attributes_interval: self.refresh(),
        }
    }
}
