//! What the engine was told, recorded independently of the engine.

use std::collections::{BTreeMap, BTreeSet};

use super::answers::Answers;
use crate::{
    model::{AttributeKey, Attributes, Device, NodeId, PolicyField, Reason},
    plan::{
        Admission, AttributeType, Call, DevicePermissions, DeviceTarget, Entry, Identity,
        ManagedSettings, Mode, PlanHash, Policy, PolicyKey, PolicyRecord, Target, apply_attributes,
    },
    tailnet::{Answer, Failure, Input, Request, Ticket},
};

/// The inputs that the engine received, recorded independently of the engine.
#[derive(Debug, Default)]
pub struct EngineInputs {
    pub leading: bool,
    pub listed: bool,
    /// Lists that were requested in this term.
    pub lists: BTreeSet<Ticket>,
    pub list_seen: bool,
    /// The policies as they apply: a denied policy counts as one that observes.
    pub policies: BTreeMap<PolicyKey, (Policy, PolicyRecord)>,
    pub declared: BTreeMap<PolicyKey, Policy>,
    /// The policies that are being deleted: they declare nothing any longer.
    pub deleting: BTreeSet<PolicyKey>,
    /// The record in the status of each policy, as the watch last showed it.
    pub stored: BTreeMap<PolicyKey, PolicyRecord>,
    pub guards: Admission,
    pub in_flight: BTreeMap<Ticket, Request>,
    /// The devices as they were last reported, with the tags written since.
    pub devices: BTreeMap<NodeId, Device>,
    /// Devices whose tags were written and not read since: what they mean for policies is not known yet.
    pub unverified_tags: BTreeSet<NodeId>,
    /// The attributes of devices as they were last read, with the writes since.
    pub read: BTreeMap<NodeId, Attributes>,
    /// Attribute types that the API refused for good on any device.
    pub refused: BTreeSet<AttributeType>,
    /// The devices before the last list. The list may be older than a read of one of them.
    pub previous: BTreeMap<NodeId, Device>,
    /// The devices of this process as they were last reported, but for those that are proven to be gone.
    pub kept: BTreeMap<NodeId, Device>,
    /// The keys that each policy object (by its UID) may have set in any process: it declared them while it
    /// was enforced, on devices that it targeted then.
    pub managed: Managed,
    /// The devices of the last list.
    pub last_list: BTreeSet<NodeId>,
    /// Lists in flight that were requested over a former connection or in a former term.
    former_lists: BTreeSet<Ticket>,
    /// The devices that any answer of this term and connection has shown.
    pub seen: BTreeSet<NodeId>,
    /// Devices that the API answered to be gone.
    pub gone: BTreeSet<NodeId>,
    /// The size of the plan that each hash named, over all processes.
    pub frozen: BTreeMap<(PolicyKey, PlanHash), [usize; 2]>,
    /// The plans whose approval a status records as used, over all processes.
    pub used: BTreeSet<(String, PlanHash)>,
    pub answers: Answers,
}

type Managed = BTreeSet<(String, AttributeKey, NodeId)>;

impl EngineInputs {
    /// The state of a new process: empty, except for records that outlive a process.
    pub fn for_next_process(self) -> Self {
        Self {
            frozen: self.frozen,
            used: self.used,
            managed: self.managed,
            ..Self::default()
        }
    }

    pub fn note(&mut self, input: &Input) {
        self.note_facts(input);
        match input {
            Input::Policy(_) => self.note_managed(None),
            Input::Answered(_, Ok(Answer::Devices { .. } | Answer::Device(_))) => {
                let changed = self.devices.values();
                let changed = changed.filter(|it| self.previous.get(&it.node_id) != Some(it));
                let changed: BTreeSet<NodeId> = changed.map(|it| it.node_id.clone()).collect();
                self.note_managed(Some(&changed));
            }
            _ => {}
        }
    }

    /// Notes devices that policies may manage now: of all devices, or of those that changed.
    pub fn note_managed(&mut self, changed: Option<&BTreeSet<NodeId>>) {
        for (policy, record) in self.policies.values() {
            if !matches!(policy.mode, Mode::Enforce | Mode::Approve) {
                continue;
            }
            let seen = self.devices.values();
            let seen =
                seen.filter(|it| changed.is_none_or(|changed| changed.contains(&it.node_id)));
            let targeted = seen.filter(|device| match &policy.target {
                Target::Selector(selector) => selector.matches(device),
                Target::Device(_) => record
                    .bound
                    .as_ref()
                    .is_some_and(|it| it.node == device.node_id),
            });
            let targeted: Vec<&NodeId> = targeted.map(|device| &device.node_id).collect();
            for key in policy.desired.attributes.iter().flat_map(BTreeMap::keys) {
                let facts = targeted.iter();
                let facts = facts.map(|id| (policy.uid.clone(), key.clone(), (*id).clone()));
                self.managed.extend(facts);
            }
        }
    }

    pub fn note_facts(&mut self, input: &Input) {
        match input {
            Input::Policy(declared) => {
                let readable = declared.status_state.readable.clone();
                let policy = declared.policy.clone();
                let policy = policy.map_or_else(
                    |_| Policy::clone(&readable.unwrap()).while_invalid(),
                    |policy| Policy::clone(&policy),
                );
                self.declared.insert(declared.key.clone(), policy.clone());
                if declared.deleting.is_some() {
                    self.deleting.insert(declared.key.clone());
                } else {
                    self.deleting.remove(&declared.key);
                }
                let policy = self.admitted(policy);
                let stored = declared.record.clone();
                self.stored.insert(declared.key.clone(), stored.clone());
                let record = match self.policies.remove(&declared.key) {
                    Some((before, record)) if before.uid == declared.uid => record,
                    _ => stored,
                };
                self.policies.insert(declared.key.clone(), (policy, record));
            }
            Input::PolicyGone(key) => {
                self.policies.remove(key);
                self.stored.remove(key);
                self.declared.remove(key);
                self.deleting.remove(key);
            }
            Input::Settings(settings) => {
                self.guards.guardrails = settings.guardrails.clone();
                self.apply_permissions();
            }
            Input::Namespace(name, labels) => {
                match labels {
                    Some(labels) => self.guards.namespaces.insert(name.clone(), labels.clone()),
                    None => self.guards.namespaces.remove(name),
                };
                self.apply_permissions();
            }
            Input::PoliciesListed => self.listed = true,
            Input::Term(term) => {
                self.leading = term.is_some();
                // A term starts with the stored records and nothing else.
                if self.leading {
                    for (key, (_, record)) in &mut self.policies {
                        *record = self.stored[key].clone();
                    }
                }
                self.lists.clear();
                self.list_seen = false;
                self.end_lists();
            }
            Input::Connection { .. } => self.end_lists(),
            Input::Answered(ticket, answer) => {
                self.learn(*ticket, answer);
                self.in_flight.remove(ticket);
                let seen =
                    self.lists.contains(ticket) && matches!(answer, Ok(Answer::Devices { .. }));
                self.list_seen |= seen;
            }
            Input::Recorded { key, uid, record } => {
                let kept = self.policies.get_mut(key);
                if let Some((_, kept)) = kept.filter(|(policy, _)| policy.uid == *uid) {
                    *kept = (**record).clone();
                }
            }
            _ => {}
        }
    }

    /// A list of the former term or connection may still arrive, and the engine ignores it: it may have asked for a
    /// newer one since.
    fn end_lists(&mut self) {
        self.seen.clear();
        let lists = self.in_flight.iter();
        let lists = lists.filter(|(_, request)| **request == Request::Devices);
        self.former_lists.extend(lists.map(|(ticket, _)| *ticket));
    }

    pub fn admitted(&self, policy: Policy) -> Policy {
        let refused = Policy {
            mode: Mode::Observe,
            ..policy.clone()
        };
        self.guards.admit(policy).unwrap_or(refused)
    }

    pub fn apply_permissions(&mut self) {
        for (key, policy) in &self.declared {
            let policy = self.admitted(policy.clone());
            if let Some((counts, _)) = self.policies.get_mut(key) {
                *counts = policy;
            }
        }
    }

    /// Whether the guardrails permit any policy to change one of these fields of a device, as it was last
    /// reported.
    pub fn permit(&self, id: &NodeId, fields: &[PolicyField]) -> bool {
        let guardrails = &self.guards.guardrails;
        let may = |(policy, record): &(Policy, PolicyRecord), device: &Device| {
            let mut fields = fields.iter();
            let denied = |field: &PolicyField| guardrails.denies(policy, *field, device).is_some();
            may_send(policy, record) && fields.any(|field| !denied(field))
        };
        let seen = [self.devices.get(id), self.previous.get(id)];
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| self.policies.values().any(|policy| may(policy, device)))
    }

    /// Whether the guardrails permit adding or removing this entry of a list.
    pub fn own<T: Entry>(&self, id: &NodeId, entry: &T) -> bool {
        let seen = [self.devices.get(id), self.previous.get(id)];
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| {
            let mut policies = self.policies.values();
            policies.any(|(policy, record)| {
                may_send(policy, record) && DevicePermissions::of(policy, device).owns(entry)
            })
        })
    }

    pub fn learn(&mut self, ticket: Ticket, answer: &Result<Answer, Failure>) {
        match answer {
            Ok(Answer::Devices { .. }) if self.former_lists.remove(&ticket) => {}
            Ok(Answer::Devices { devices, .. }) => {
                let by_id = |device: &Device| (device.node_id.clone(), device.clone());
                let reported = devices.iter().map(by_id).collect();
                self.previous = std::mem::replace(&mut self.devices, reported);
                self.last_list = self.devices.keys().cloned().collect();
                self.kept.extend(self.devices.clone());
                self.seen.extend(self.last_list.iter().cloned());
                self.unverified_tags.clear();
                // A device that is shared in is none of the tailnet's own, and stays gone.
                let own = |id: &NodeId| self.devices.get(id).is_some_and(|it| !it.external);
                self.gone.retain(|id| !own(id));
            }
            Ok(Answer::Device(device)) => {
                let id = device.node_id.clone();
                if device.external {
                    self.gone.insert(id.clone());
                } else {
                    self.gone.remove(&id);
                }
                self.unverified_tags.remove(&id);
                self.seen.insert(id.clone());
                self.kept.insert(id.clone(), (**device).clone());
                self.devices.insert(id, (**device).clone());
            }
            Err(failure) if failure.reason == Reason::Refused => {
                if let Some(Request::Write(Call::WriteAttributes(nodes))) =
                    self.in_flight.get(&ticket)
                {
                    let writes = nodes.values().flatten();
                    let set = writes.filter_map(|(key, desired)| Some((key, desired.as_ref()?)));
                    self.refused
                        .extend(set.map(|(key, desired)| AttributeType::of(key, desired)));
                }
            }
            Err(failure) if failure.reason == Reason::DeviceNotFound => {
                if let Some(Request::Device(id)) = self.in_flight.get(&ticket) {
                    self.kept.remove(id);
                    self.gone.insert(id.clone());
                }
            }
            Ok(Answer::Written) => {
                if let Some(Request::Write(Call::Delete(id))) = self.in_flight.get(&ticket) {
                    self.gone.insert(id.clone());
                }
                if let Some(Request::Write(Call::SetTags(id, tags))) = self.in_flight.get(&ticket)
                    && let Some(device) = self.devices.get_mut(id)
                {
                    device.tags.clone_from(tags);
                    self.unverified_tags.insert(id.clone());
                }
                if let Some(Request::Write(Call::WriteAttributes(nodes))) =
                    self.in_flight.get(&ticket)
                {
                    for (id, writes) in nodes {
                        apply_attributes(writes, self.read.entry(id.clone()).or_default());
                    }
                }
            }
            Ok(Answer::Attributes(values)) => {
                if let Some(Request::Attributes(id)) = self.in_flight.get(&ticket) {
                    self.read.insert(id.clone(), values.clone());
                }
            }
            _ => {}
        }
    }

    /// The policies that the engine may know to target a device: by their records, by the last reported
    /// state, and by its own writes.
    pub fn holders(&self, id: &NodeId) -> impl Iterator<Item = &(Policy, PolicyRecord)> {
        let seen = [self.devices.get(id), self.previous.get(id)];
        self.policies.values().filter(move |(policy, record)| {
            let bound = record.bound.as_ref();
            match &policy.target {
                // A policy that was edited to name another device has released this one.
                Target::Device(target) => {
                    // That of a former target stays until the device that is named now is found.
                    if let Some(bound) = bound.filter(|bound| target.names(&bound.named)) {
                        return bound.node == *id;
                    }
                    // While its owner is unknown, no binding is recorded, and its id needs none.
                    let mut seen = seen.into_iter().flatten();
                    seen.any(|device| is_for(target, device))
                }
                Target::Selector(selector) => {
                    let mut seen = seen.into_iter().flatten();
                    seen.any(|device| selector.matches(device))
                }
            }
        })
    }

    /// Whether a policy selects a device as it was last reported.
    pub fn still_selects(&self, policy: &Policy, id: &NodeId) -> bool {
        match (&policy.target, self.devices.get(id)) {
            (Target::Selector(selector), Some(device)) => selector.matches(device),
            _ => true,
        }
    }

    pub fn names(&self, id: &NodeId, desired: impl Fn(&Policy) -> bool) -> bool {
        let mut holders = self.holders(id);
        holders.any(|(policy, record)| may_send(policy, record) && desired(policy))
    }

    /// The settings that policies may clear from a released device, by their records.
    pub fn due(&self, id: &NodeId) -> ManagedSettings {
        let mut due = ManagedSettings::default();
        for (policy, record) in self.policies.values() {
            if policy.clears() {
                due.merge(&record.managed.due(id));
            }
        }
        due
    }
}

/// Whether a policy names this device by an id, and the device is what it must be, or may be.
fn is_for(target: &DeviceTarget, device: &Device) -> bool {
    let is_named = match &target.identity {
        Identity::NodeId(named) => *named == device.node_id,
        Identity::LegacyId(named) => *named == device.legacy_id,
        Identity::Name(_) | Identity::Hostname(_) => false,
    };
    let is_owned = device.tags.is_empty() && target.users.contains(&device.user);
    let is_met = target.tags.is_subset(&device.tags) && (target.users.is_empty() || is_owned);
    is_named && (is_met || !device.unreadable.is_empty())
}

/// Whether a policy may send anything. One that requires approval may only once its status records the used
/// approval.
pub fn may_send(policy: &Policy, record: &PolicyRecord) -> bool {
    match policy.mode {
        Mode::Enforce => true,
        Mode::Approve => record.approvals_used > 0,
        Mode::Suspended(_) | Mode::Observe => false,
    }
}
