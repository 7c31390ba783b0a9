//! Invariants of every request at the moment when it is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::World;
use crate::{
    model::{AttributeKey, Attributes, Device, NodeId, PolicyField, Reason, Route, SettingValue},
    plan::{
        Admission, Approvals, AttributeType, AttributesOwnership, Call, DeviceIndex,
        DevicePermissions, Entry, ListOwnership, ManagedSettings, Mode, PlanHash, Policy,
        PolicyKey, PolicyRecord, Target, apply_attributes, bind_policy, may_change,
    },
    tailnet::{Answer, Failure, Input, Request, Ticket},
};

/// The inputs that the engine received, recorded independently of the engine.
#[derive(Debug, Default)]
pub struct EngineInputs {
    leading: bool,
    listed: bool,
    /// Lists that were requested in this term.
    lists: BTreeSet<Ticket>,
    list_seen: bool,
    /// The policies as they apply: a denied policy counts as one that observes.
    pub(super) policies: BTreeMap<PolicyKey, (Policy, PolicyRecord)>,
    declared: BTreeMap<PolicyKey, Policy>,
    /// The policies that are being deleted: they declare nothing any longer.
    deleting: BTreeSet<PolicyKey>,
    /// The record in the status of each policy, as the watch last showed it.
    stored: BTreeMap<PolicyKey, PolicyRecord>,
    guards: Admission,
    in_flight: BTreeMap<Ticket, Request>,
    /// The devices as they were last reported, with the tags written since.
    pub(super) devices: BTreeMap<NodeId, Device>,
    /// Devices whose tags were written and not read since: what they mean for policies is not known yet.
    unverified_tags: BTreeSet<NodeId>,
    /// The attributes of devices as they were last read, with the writes since.
    read: BTreeMap<NodeId, Attributes>,
    /// Attribute types that the API refused for good on any device.
    refused: BTreeSet<AttributeType>,
    /// The devices before the last list. The list may be older than a read of one of them.
    pub(super) previous: BTreeMap<NodeId, Device>,
    /// The keys that each policy object (by its UID) may have set in any process: it declared them while it
    /// was enforced, on devices that it targeted then.
    pub managed: Managed,
    /// The devices of the last list.
    last_list: BTreeSet<NodeId>,
    /// Devices that the API answered to be gone.
    pub(super) gone: BTreeSet<NodeId>,
    /// The size of the plan that each hash named, over all processes.
    pub(super) frozen: BTreeMap<(PolicyKey, PlanHash), [usize; 2]>,
}

type Managed = BTreeSet<(String, AttributeKey, NodeId)>;

impl EngineInputs {
    /// The state of a new process: empty, except for records that outlive a process.
    pub fn for_next_process(self) -> Self {
        Self {
            frozen: self.frozen,
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
    fn note_managed(&mut self, changed: Option<&BTreeSet<NodeId>>) {
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

    fn note_facts(&mut self, input: &Input) {
        match input {
            Input::Policy(declared) => {
                let readable = declared.status_state.readable.clone();
                let policy = declared.policy.clone();
                let policy = policy.unwrap_or_else(|_| readable.unwrap().while_invalid());
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
            }
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
                    *kept = record.clone();
                }
            }
            _ => {}
        }
    }

    fn admitted(&self, policy: Policy) -> Policy {
        let refused = Policy {
            mode: Mode::Observe,
            ..policy.clone()
        };
        self.guards.admit(policy).unwrap_or(refused)
    }

    fn apply_permissions(&mut self) {
        for (key, policy) in &self.declared {
            let policy = self.admitted(policy.clone());
            if let Some((counts, _)) = self.policies.get_mut(key) {
                *counts = policy;
            }
        }
    }

    /// Whether the guardrails permit any policy to change one of these fields of a device, as it was last
    /// reported.
    fn permit(&self, id: &NodeId, fields: &[PolicyField]) -> bool {
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

    /// Whether the guardrails permit a policy to change a field of a device.
    fn allows(&self, policy: &Policy, field: PolicyField, id: &NodeId) -> bool {
        let seen = [self.devices.get(id), self.previous.get(id)];
        let guardrails = &self.guards.guardrails;
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| guardrails.denies(policy, field, device).is_none())
    }

    /// Whether the guardrails permit adding or removing this entry of a list.
    fn own<T: Entry>(&self, id: &NodeId, entry: &T) -> bool {
        let seen = [self.devices.get(id), self.previous.get(id)];
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| {
            let mut policies = self.policies.values();
            policies.any(|(policy, record)| {
                may_send(policy, record) && DevicePermissions::of(policy, device).owns(entry)
            })
        })
    }

    fn learn(&mut self, ticket: Ticket, answer: &Result<Answer, Failure>) {
        match answer {
            Ok(Answer::Devices { devices, .. }) => {
                let by_id = |device: &Device| (device.node_id.clone(), device.clone());
                let reported = devices.iter().map(by_id).collect();
                self.previous = std::mem::replace(&mut self.devices, reported);
                self.last_list = self.devices.keys().cloned().collect();
                self.unverified_tags.clear();
                self.gone.retain(|id| !self.last_list.contains(id));
            }
            Ok(Answer::Device(device)) => {
                let id = device.node_id.clone();
                if device.external {
                    self.gone.insert(id.clone());
                } else {
                    self.gone.remove(&id);
                }
                self.unverified_tags.remove(&id);
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
    fn holders(&self, id: &NodeId) -> impl Iterator<Item = &(Policy, PolicyRecord)> {
        let seen = [self.devices.get(id), self.previous.get(id)];
        self.policies.values().filter(move |(policy, record)| {
            let bound = record.bound.as_ref();
            match &policy.target {
                Target::Device(_) => bound.is_some_and(|bound| bound.node == *id),
                Target::Selector(selector) => {
                    let mut seen = seen.into_iter().flatten();
                    seen.any(|device| selector.matches(device))
                }
            }
        })
    }

    fn names(&self, id: &NodeId, desired: impl Fn(&Policy) -> bool) -> bool {
        let mut holders = self.holders(id);
        holders.any(|(policy, record)| may_send(policy, record) && desired(policy))
    }

    /// The settings that policies may clear from a released device, by their records.
    fn due(&self, id: &NodeId) -> ManagedSettings {
        let mut due = ManagedSettings::default();
        for (policy, record) in self.policies.values() {
            if policy.clears() {
                due.merge(&record.managed.due(id));
            }
        }
        due
    }
}

/// Whether a policy may send anything. One that requires approval may only once its status records the used
/// approval.
fn may_send(policy: &Policy, record: &PolicyRecord) -> bool {
    match policy.mode {
        Mode::Enforce => true,
        Mode::Approve => record.approvals_used > 0,
        Mode::Suspended(_) | Mode::Observe => false,
    }
}

impl World {
    pub fn check(&mut self, ticket: Ticket, request: &Request) {
        if *request == Request::Devices {
            self.reported.lists.insert(ticket);
            let under_way = self
                .reported
                .in_flight
                .values()
                .filter(|r| **r == Request::Devices);
            assert!(under_way.count() <= 2, "lists pile up");
        } else {
            let in_flight = self
                .reported
                .in_flight
                .values()
                .filter(|r| **r != Request::Devices);
            assert!(in_flight.count() < 60, "requests pile up");
            assert!(self.reported.leading, "{request:?} without the lead");
            assert!(
                self.reported.listed,
                "{request:?} before all policies are known"
            );
            assert!(self.reported.list_seen, "{request:?} before the first list");
        }
        if let Request::Write(call) = request {
            for other in self.reported.in_flight.values() {
                if let Request::Write(other) = other {
                    let shared = other.nodes().iter().any(|id| call.nodes().contains(id));
                    let both_attributes = matches!(
                        (call, other),
                        (Call::WriteAttributes(_), Call::WriteAttributes(_))
                    );
                    assert!(!shared || both_attributes, "{call:?} beside {other:?}");
                }
            }
            for id in call.nodes() {
                let listed = self.reported.last_list.contains(id);
                assert!(listed, "{call:?}, but the last list lacks {id}");
            }
            self.check_call(call);
            self.check_precedence(call);
            self.check_guards(call);
        }
        self.reported.in_flight.insert(ticket, request.clone());
    }

    /// A policy whose spec is invalid keeps its precedence.
    fn check_precedence(&self, call: &Call) {
        let names: fn(&Policy) -> bool = match call {
            Call::Set(_, SettingValue::Authorized(_)) => |p| p.desired.authorized.is_some(),
            Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => {
                |p| p.desired.key_expiry_disabled.is_some()
            }
            Call::SetTags(..) => {
                |p| p.desired.tags.is_some() && p.ownership.tags == ListOwnership::Exact
            }
            _ => return,
        };
        for id in call.nodes() {
            let holders = self.reported.holders(id).map(|(policy, _)| policy);
            let deciding = holders.filter(|policy| policy.mode != Mode::Observe && names(policy));
            let first = deciding.min_by_key(|policy| policy.rank());
            // Another policy may declare the same value.
            let agrees = |policy: &Policy| match call {
                Call::Set(_, SettingValue::Authorized(after)) => {
                    policy.desired.authorized == Some(*after)
                }
                Call::Set(_, SettingValue::KeyExpiryDisabled(after)) => {
                    policy.desired.key_expiry_disabled == Some(*after)
                }
                _ => false,
            };
            let invalid = first.filter(|policy| policy.is_invalid() && !agrees(policy));
            assert!(invalid.is_none(), "{call:?} takes from {invalid:?}");
        }
    }

    /// A request changes only fields that a policy declares, on a device that the policy is known to
    /// target.
    fn check_call(&self, call: &Call) {
        let named = |id: &NodeId, desired: fn(&Policy) -> bool| {
            assert!(
                self.reported.names(id, desired),
                "{call:?} is named by no policy"
            );
        };
        match call {
            Call::Set(id, SettingValue::Authorized(_)) => {
                named(id, |p| p.desired.authorized.is_some());
            }
            Call::SetTags(id, tags) => {
                assert!(!tags.is_empty());
                named(id, |p| p.desired.tags.is_some());
                let replaces = |p: &Policy| {
                    p.desired.tags.is_some() && p.ownership.tags == ListOwnership::Exact
                };
                let before = self.model.devices.get(id).map(|device| &device.tags);
                if !self.reported.names(id, replaces) && !self.has_drifted(id) {
                    let kept = before.is_none_or(|before| before.is_subset(tags));
                    assert!(kept, "{call:?} takes tags away: {before:?}");
                }
            }
            Call::Set(id, SettingValue::KeyExpiryDisabled(_)) => {
                named(id, |p| p.desired.key_expiry_disabled.is_some());
            }
            Call::Set(id, SettingValue::Name(_)) => named(id, |p| p.desired.name.is_some()),
            Call::Set(id, SettingValue::Ipv4(_)) => named(id, |p| p.desired.ipv4.is_some()),
            Call::SetRoutes(id, routes) => {
                let due = self.reported.due(id).routes;
                let owns = |p: &Policy| {
                    p.desired.enabled_routes.is_some() || p.desired.exit_node.is_some()
                };
                if due.is_empty() {
                    named(id, owns);
                }
                if self.has_drifted(id) {
                    return;
                }
                let before = self
                    .model
                    .devices
                    .get(id)
                    .and_then(|d| d.enabled_routes.as_ref());
                // Entries that are removed from a released device do not count here.
                let kept = |exit: bool| {
                    let side =
                        |route: &&Route| route.is_exit_node() == exit && !due.contains(route);
                    before.is_none_or(|before| {
                        before.iter().filter(side).eq(routes.iter().filter(side))
                    })
                };
                if !self.reported.names(id, |p| p.desired.exit_node.is_some()) {
                    assert!(kept(true), "{call:?} touches the exit node: {before:?}");
                }
                if !self
                    .reported
                    .names(id, |p| p.desired.enabled_routes.is_some())
                {
                    assert!(kept(false), "{call:?} touches the routes: {before:?}");
                }
                let replaces = |p: &Policy| {
                    p.desired.enabled_routes.is_some()
                        && p.ownership.enabled_routes == ListOwnership::Exact
                };
                if !self.reported.names(id, replaces) {
                    let mut before = before.into_iter().flatten();
                    let kept =
                        before.all(|r| r.is_exit_node() || due.contains(r) || routes.contains(r));
                    assert!(kept, "{call:?} withdraws routes");
                }
            }
            Call::ExpireKey(id) => self.check_expiry(id),
            Call::Delete(id) => self.check_deletion(id),
            Call::WriteAttributes(nodes) => {
                assert!(nodes.len() <= 50, "a batch of {}", nodes.len());
                for (id, writes) in nodes {
                    for (key, desired) in writes {
                        self.check_attribute(id, key, desired.is_none());
                        if let Some(desired) = desired {
                            self.check_form(&AttributeType::of(key, desired));
                        }
                    }
                }
            }
        }
    }

    /// A key is expired only for a policy whose record says that the expiry began in time, while the device
    /// still has the key of that time.
    fn check_expiry(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.reported.devices[id];
        let begun = |(policy, record): &(Policy, PolicyRecord)| {
            let at = policy.desired.expire_key_at?;
            let expiry = record.actions.expiries.get(&at)?;
            let same = expiry.started.get(id) == Some(&device.expires);
            let joined = device.created.is_some_and(|created| created <= at);
            let known = same && joined && !expiry.done.contains(id);
            Some(known && may_send(policy, record) && at >= policy.created && at <= now)
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "the key of {id} is expired for nobody: {holders:?}");
        assert!(!device.external && !device.key_expiry_disabled);
    }

    /// A device is deleted only if the last reports show it as inactive, for a policy whose record says
    /// that the deletion began, within the policy's daily count.
    fn check_deletion(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.reported.devices[id];
        let away = now.duration_since(device.last_seen.unwrap());
        let begun = |(policy, record): &(Policy, PolicyRecord)| {
            let delete_inactive = policy.desired.delete_inactive?;
            let records = &record.actions.deletions;
            let day = jiff::SignedDuration::from_hours(24);
            let counting = records
                .values()
                .filter(|it| now.duration_since(it.at) < day);
            assert!(
                counting.count() <= delete_inactive.max_per_day as usize,
                "{records:?}"
            );
            let begun = records.get(id).is_some_and(|record| !record.done);
            let of_many = matches!(policy.target, Target::Selector(_));
            Some(
                begun
                    && of_many
                    && may_send(policy, record)
                    && away >= delete_inactive.inactive_for,
            )
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "{id} is deleted for nobody: {holders:?}");
        assert!(!device.external && device.connected == Some(false));
    }

    /// No request makes a change that the guardrails deny.
    fn check_guards(&self, call: &Call) {
        let fields: &[PolicyField] = match call {
            Call::Set(_, SettingValue::Authorized(_)) => &[PolicyField::Authorized],
            Call::SetTags(..) => &[PolicyField::Tags],
            Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => &[PolicyField::KeyExpiry],
            Call::WriteAttributes(_) => &[PolicyField::PostureAttributes],
            Call::SetRoutes(..) => &[PolicyField::EnabledRoutes, PolicyField::ExitNode],
            Call::Set(_, SettingValue::Name(_)) => &[PolicyField::Name],
            Call::Set(_, SettingValue::Ipv4(_)) => &[PolicyField::Ipv4],
            Call::ExpireKey(_) => &[PolicyField::ExpireKeyAt],
            Call::Delete(_) => &[PolicyField::DeleteInactive],
        };
        for id in call.nodes() {
            assert!(self.reported.permit(id, fields), "{call:?} is forbidden");
            let Some(device) = self.model.devices.get(id).filter(|_| !self.has_drifted(id)) else {
                continue;
            };
            match call {
                Call::SetTags(_, tags) => {
                    let mut changed = device.tags.symmetric_difference(tags);
                    assert!(changed.all(|tag| self.reported.own(id, tag)), "{call:?}");
                }
                Call::SetRoutes(_, routes) => {
                    let before = device.enabled_routes.iter().flatten().copied().collect();
                    let mut changed = routes.symmetric_difference(&before);
                    let own = |route: &Route| route.is_exit_node() || self.reported.own(id, route);
                    assert!(changed.all(own), "{call:?}: {before:?}");
                }
                _ => {}
            }
        }
    }

    /// Whether someone else changed the device so recently that a read may not show it.
    fn has_drifted(&self, id: &NodeId) -> bool {
        let drifted = self.drifted.get(id);
        drifted.is_some_and(|at| self.clock < *at + Duration::from_secs(15))
    }

    /// No policy of higher precedence declares the key with another type, unless it may set the key nowhere
    /// or the tailnet cannot have that type.
    fn check_form(&self, attribute_type: &AttributeType) {
        // Tags that were written and not read since may already match a policy, or not.
        let deciding = [true, false].map(|verified| self.first_type(attribute_type, verified));
        assert!(
            deciding
                .iter()
                .any(|it| it.as_ref().is_none_or(|it| it == attribute_type)),
            "{deciding:?} decides, not {attribute_type:?}"
        );
    }

    /// The type of the policy that takes precedence for the key, among the devices whose tags are verified, or
    /// among all.
    fn first_type(&self, attribute_type: &AttributeType, verified: bool) -> Option<AttributeType> {
        let policies = self.reported.policies.values();
        let fleet = DeviceIndex::new(self.reported.devices.values().cloned());
        let deciding = policies.filter(|(policy, record)| {
            let binding = bind_policy(policy, record, &Approvals::default(), &fleet);
            let field = PolicyField::PostureAttributes;
            let mut targets = binding.nodes();
            policy.mode != Mode::Observe
                && !self.reported.deleting.contains(&policy.key)
                && is_decided(policy, record)
                && targets.any(|id| {
                    !(verified && self.reported.unverified_tags.contains(id))
                        && self.reported.allows(policy, field, id)
                })
        });
        let deciding = deciding.map(|(policy, _)| policy);
        let present: BTreeSet<AttributeType> = self
            .reported
            .read
            .values()
            .flat_map(AttributeType::all)
            .collect();
        let can_hold = |claim: &AttributeType| {
            let mut present = present.iter();
            *claim == *attribute_type
                || !self.reported.refused.contains(claim)
                    && !present.any(|it| it.key.folded() == claim.key.folded() && it != claim)
        };
        let claims = deciding.flat_map(|policy| {
            let desired = policy.desired.attributes.iter().flatten();
            desired.map(move |(key, desired)| (policy.rank(), key, desired))
        });
        let now = self.wall();
        let first = claims
            .filter(|(_, key, _)| key.folded() == attribute_type.key.folded())
            .filter(|(.., desired)| desired.expiry.is_none_or(|expiry| expiry > now))
            .filter(|(_, key, desired)| can_hold(&AttributeType::of(key, desired)))
            .min_by_key(|(rank, ..)| *rank);
        first.map(|(_, key, desired)| AttributeType::of(key, desired))
    }

    /// An attribute is written only for a policy that is recorded as its owner there. It is deleted only if
    /// a version of that policy declared it.
    fn check_attribute(&self, id: &NodeId, key: &AttributeKey, deletes: bool) {
        let device = self.reported.devices.get(id);
        let owned = |(policy, record): &(Policy, PolicyRecord)| {
            let recorded = device.is_some_and(|device| record.owned.at(device).contains(key));
            let fact = (policy.uid.clone(), key.clone(), id.clone());
            may_send(policy, record)
                && policy.desired.attributes.is_some()
                && ((recorded && (!deletes || self.reported.managed.contains(&fact)))
                    || policy.ownership.attributes == AttributesOwnership::Exact)
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        assert!(
            holders.iter().any(|holder| owned(holder)) || self.reported.due(id).keys.contains(key),
            "{key} of {id} is owned by no policy: {holders:?}"
        );
    }
}

/// Whether a policy that names a device has found it. A name needs two lists: until then it targets nothing.
fn is_decided(policy: &Policy, record: &PolicyRecord) -> bool {
    match &policy.target {
        Target::Device(target) if may_change(&target.identity) => {
            let named = target.identity.to_string();
            record
                .bound
                .as_ref()
                .is_some_and(|bound| bound.named == named)
        }
        _ => true,
    }
}
