//! What must hold whenever a request is sent, whatever happened before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::World;
use crate::{
    api::{PolicyField, Reason},
    model::{AttributeKey, Attributes, Device, NodeId, Route},
    plan::{
        Approvals, AttributesExtent, Belongings, Call, Entry, Extent, Fleet, Form, Guards, Memory,
        Mode, PlanHash, Policy, PolicyKey, Reach, Target, apply_attributes, bind_policy,
    },
    tailnet::{Answer, Failure, Input, Request, Ticket},
};

/// What the engine has been told, seen from outside.
#[derive(Debug, Default)]
pub struct Told {
    leading: bool,
    listed: bool,
    /// Lists that were asked for since the lead was taken.
    lists: BTreeSet<Ticket>,
    list_seen: bool,
    /// As they count: one that is refused counts as one that observes.
    pub(super) policies: BTreeMap<PolicyKey, (Policy, Memory)>,
    declared: BTreeMap<PolicyKey, Policy>,
    /// What the status of each recorded when it was watched last.
    stored: BTreeMap<PolicyKey, Memory>,
    guards: Guards,
    flights: BTreeMap<Ticket, Request>,
    /// The devices as they were told, with the tags that were written since.
    pub(super) devices: BTreeMap<NodeId, Device>,
    /// The attributes of devices as they were read last, with what was written since.
    read: BTreeMap<NodeId, Attributes>,
    /// The forms of attributes that were refused for good, be it only on some device.
    refused: BTreeSet<Form>,
    /// As they were before the last list, which may be older than a look at one of them.
    pub(super) former: BTreeMap<NodeId, Device>,
    /// What each policy object (by its UID) may have set, whatever process sent it: the keys that it
    /// has declared while it was to be enforced, on the devices that it targeted then.
    pub managed: Managed,
    /// The devices of the last list.
    last_list: BTreeSet<NodeId>,
    /// Devices that the API itself says are gone.
    pub(super) gone: BTreeSet<NodeId>,
    /// What each hash of a frozen plan was told to be made of, for the life of the world.
    pub(super) frozen: BTreeMap<(PolicyKey, PlanHash), [usize; 2]>,
}

type Managed = BTreeSet<(String, AttributeKey, NodeId)>;

impl Told {
    /// What another process knows: nothing. What was set and which plans were shown stays so.
    pub fn of_next_life(self) -> Self {
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
                let changed = changed.filter(|it| self.former.get(&it.node_id) != Some(it));
                let changed: BTreeSet<NodeId> = changed.map(|it| it.node_id.clone()).collect();
                self.note_managed(Some(&changed));
            }
            _ => {}
        }
    }

    /// Policies may have come to manage devices: all of them, or those that have changed.
    fn note_managed(&mut self, changed: Option<&BTreeSet<NodeId>>) {
        for (policy, memory) in self.policies.values() {
            if !matches!(policy.mode, Mode::Enforce | Mode::Approve) {
                continue;
            }
            let seen = self.devices.values();
            let seen =
                seen.filter(|it| changed.is_none_or(|changed| changed.contains(&it.node_id)));
            let targeted = seen.filter(|device| match &policy.target {
                Target::Fleet(selector) => selector.fits(device),
                Target::Device(_) => memory
                    .bound
                    .as_ref()
                    .is_some_and(|it| it.node == device.node_id),
            });
            let targeted: Vec<&NodeId> = targeted.map(|device| &device.node_id).collect();
            for key in policy.wishes.attributes.iter().flat_map(BTreeMap::keys) {
                let facts = targeted.iter();
                let facts = facts.map(|id| (policy.uid.clone(), key.clone(), (*id).clone()));
                self.managed.extend(facts);
            }
        }
    }

    fn note_facts(&mut self, input: &Input) {
        match input {
            Input::Policy(declared) => {
                let readable = declared.standing.readable.clone();
                let policy = declared.policy.clone();
                let policy = policy.unwrap_or_else(|_| readable.unwrap().while_invalid());
                self.declared.insert(declared.key.clone(), policy.clone());
                let policy = self.admitted(policy);
                let stored = declared.memory.clone();
                self.stored.insert(declared.key.clone(), stored.clone());
                let memory = match self.policies.remove(&declared.key) {
                    Some((before, memory)) if before.uid == declared.uid => memory,
                    _ => stored,
                };
                self.policies.insert(declared.key.clone(), (policy, memory));
            }
            Input::PolicyGone(key) => {
                self.policies.remove(key);
                self.stored.remove(key);
                self.declared.remove(key);
            }
            Input::Settings(settings) => {
                self.guards.guardrails = settings.guardrails.clone();
                self.judge_anew();
            }
            Input::Namespace(name, labels) => {
                match labels {
                    Some(labels) => self.guards.namespaces.insert(name.clone(), labels.clone()),
                    None => self.guards.namespaces.remove(name),
                };
                self.judge_anew();
            }
            Input::PoliciesListed => self.listed = true,
            Input::Term(term) => {
                self.leading = term.is_some();
                // A term starts with what is stored, and nothing else.
                if self.leading {
                    for (key, (_, memory)) in &mut self.policies {
                        *memory = self.stored[key].clone();
                    }
                }
                self.lists.clear();
                self.list_seen = false;
            }
            Input::Answered(ticket, answer) => {
                self.learn(*ticket, answer);
                self.flights.remove(ticket);
                let seen =
                    self.lists.contains(ticket) && matches!(answer, Ok(Answer::Devices { .. }));
                self.list_seen |= seen;
            }
            Input::Recorded { key, uid, memory } => {
                let kept = self.policies.get_mut(key);
                if let Some((_, kept)) = kept.filter(|(policy, _)| policy.uid == *uid) {
                    *kept = memory.clone();
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

    fn judge_anew(&mut self) {
        for (key, policy) in &self.declared {
            let policy = self.admitted(policy.clone());
            if let Some((counts, _)) = self.policies.get_mut(key) {
                *counts = policy;
            }
        }
    }

    /// Whether the guards permit to touch one of these fields of a device, as it was told last, for any
    /// policy.
    fn permit(&self, id: &NodeId, fields: &[PolicyField]) -> bool {
        let guardrails = &self.guards.guardrails;
        let may = |(policy, memory): &(Policy, Memory), device: &Device| {
            let mut fields = fields.iter();
            let barred = |field: &PolicyField| guardrails.bars(policy, *field, device).is_some();
            may_act(policy, memory) && fields.any(|field| !barred(field))
        };
        let seen = [self.devices.get(id), self.former.get(id)];
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| self.policies.values().any(|policy| may(policy, device)))
    }

    /// Whether the guards permit a policy to change a field of a device.
    fn allows(&self, policy: &Policy, field: PolicyField, id: &NodeId) -> bool {
        let seen = [self.devices.get(id), self.former.get(id)];
        let guardrails = &self.guards.guardrails;
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| guardrails.bars(policy, field, device).is_none())
    }

    /// Whether the guards permit that this entry of a list is given or taken.
    fn own<T: Entry>(&self, id: &NodeId, entry: &T) -> bool {
        let seen = [self.devices.get(id), self.former.get(id)];
        let mut seen = seen.into_iter().flatten();
        seen.any(|device| {
            let mut policies = self.policies.values();
            policies.any(|(policy, memory)| {
                may_act(policy, memory) && Reach::of(policy, device).owns(entry)
            })
        })
    }

    fn learn(&mut self, ticket: Ticket, answer: &Result<Answer, Failure>) {
        match answer {
            Ok(Answer::Devices { devices, .. }) => {
                let by_id = |device: &Device| (device.node_id.clone(), device.clone());
                let told = devices.iter().map(by_id).collect();
                self.former = std::mem::replace(&mut self.devices, told);
                self.last_list = self.devices.keys().cloned().collect();
                self.gone.retain(|id| !self.last_list.contains(id));
            }
            Ok(Answer::Device(device)) => {
                let id = device.node_id.clone();
                if device.external {
                    self.gone.insert(id.clone());
                } else {
                    self.gone.remove(&id);
                }
                self.devices.insert(id, (**device).clone());
            }
            Err(failure) if failure.reason == Reason::Refused => {
                if let Some(Request::Write(Call::WriteAttributes(nodes))) =
                    self.flights.get(&ticket)
                {
                    let writes = nodes.values().flatten();
                    let set = writes.filter_map(|(key, wish)| Some((key, wish.as_ref()?)));
                    self.refused
                        .extend(set.map(|(key, wish)| Form::of(key, wish)));
                }
            }
            Err(failure) if failure.reason == Reason::DeviceNotFound => {
                if let Some(Request::Device(id)) = self.flights.get(&ticket) {
                    self.gone.insert(id.clone());
                }
            }
            Ok(Answer::Written) => {
                if let Some(Request::Write(Call::Delete(id))) = self.flights.get(&ticket) {
                    self.gone.insert(id.clone());
                }
                if let Some(Request::Write(Call::SetTags(id, tags))) = self.flights.get(&ticket)
                    && let Some(device) = self.devices.get_mut(id)
                {
                    device.tags.clone_from(tags);
                }
                if let Some(Request::Write(Call::WriteAttributes(nodes))) =
                    self.flights.get(&ticket)
                {
                    for (id, writes) in nodes {
                        apply_attributes(writes, self.read.entry(id.clone()).or_default());
                    }
                }
            }
            Ok(Answer::Attributes(values)) => {
                if let Some(Request::Attributes(id)) = self.flights.get(&ticket) {
                    self.read.insert(id.clone(), values.clone());
                }
            }
            _ => {}
        }
    }

    /// The policies that the engine may know to mean a device: by what it keeps of a single one,
    /// and by what it was told last or wrote itself.
    fn holders(&self, id: &NodeId) -> impl Iterator<Item = &(Policy, Memory)> {
        let seen = [self.devices.get(id), self.former.get(id)];
        self.policies.values().filter(move |(policy, memory)| {
            let bound = memory.bound.as_ref();
            match &policy.target {
                Target::Device(_) => bound.is_some_and(|bound| bound.node == *id),
                Target::Fleet(selector) => {
                    let mut seen = seen.into_iter().flatten();
                    seen.any(|device| selector.fits(device))
                }
            }
        })
    }

    fn names(&self, id: &NodeId, wish: impl Fn(&Policy) -> bool) -> bool {
        let mut holders = self.holders(id);
        holders.any(|(policy, memory)| may_act(policy, memory) && wish(policy))
    }

    /// What policies that have let a device go may take from it, by what is kept of them.
    fn due(&self, id: &NodeId) -> Belongings {
        let mut due = Belongings::default();
        for (policy, memory) in self.policies.values() {
            if policy.clears() {
                due.merge(&memory.holdings.due(id));
            }
        }
        due
    }
}

/// Whether something may be sent for a policy: where it asks for approvals, only once it is kept that
/// one was used.
fn may_act(policy: &Policy, memory: &Memory) -> bool {
    match policy.mode {
        Mode::Enforce => true,
        Mode::Approve => memory.approvals_used > 0,
        Mode::Suspended(_) | Mode::Observe => false,
    }
}

impl World {
    pub fn check(&mut self, ticket: Ticket, request: &Request) {
        if *request == Request::Devices {
            self.told.lists.insert(ticket);
            let under_way = self
                .told
                .flights
                .values()
                .filter(|r| **r == Request::Devices);
            assert!(under_way.count() <= 2, "lists pile up");
        } else {
            let flights = self
                .told
                .flights
                .values()
                .filter(|r| **r != Request::Devices);
            assert!(flights.count() < 60, "requests pile up");
            assert!(self.told.leading, "{request:?} without the lead");
            assert!(
                self.told.listed,
                "{request:?} before all policies are known"
            );
            assert!(self.told.list_seen, "{request:?} before the first list");
        }
        if let Request::Write(call) = request {
            for other in self.told.flights.values() {
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
                let listed = self.told.last_list.contains(id);
                assert!(listed, "{call:?}, but the last list lacks {id}");
            }
            self.check_call(call);
            self.check_precedence(call);
            self.check_guards(call);
        }
        self.told.flights.insert(ticket, request.clone());
    }

    /// A policy whose spec is invalid keeps its precedence.
    fn check_precedence(&self, call: &Call) {
        let names: fn(&Policy) -> bool = match call {
            Call::SetAuthorized(..) => |p| p.wishes.authorized.is_some(),
            Call::SetKeyExpiryDisabled(..) => |p| p.wishes.key_expiry_disabled.is_some(),
            Call::SetTags(..) => |p| p.wishes.tags.is_some() && p.ownership.tags == Extent::Exact,
            _ => return,
        };
        for id in call.nodes() {
            let holders = self.told.holders(id).map(|(policy, _)| policy);
            let deciding = holders.filter(|policy| policy.mode != Mode::Observe && names(policy));
            let first = deciding.min_by_key(|policy| policy.rank());
            // Another policy may desire just the same.
            let agrees = |policy: &Policy| match call {
                Call::SetAuthorized(_, after) => policy.wishes.authorized == Some(*after),
                Call::SetKeyExpiryDisabled(_, after) => {
                    policy.wishes.key_expiry_disabled == Some(*after)
                }
                _ => false,
            };
            let invalid = first.filter(|policy| policy.is_invalid() && !agrees(policy));
            assert!(invalid.is_none(), "{call:?} takes from {invalid:?}");
        }
    }

    /// A call touches what a policy names, on a device that it is known to hold, and nothing else.
    fn check_call(&self, call: &Call) {
        let named = |id: &NodeId, wish: fn(&Policy) -> bool| {
            assert!(self.told.names(id, wish), "{call:?} is named by no policy");
        };
        match call {
            Call::SetAuthorized(id, _) => named(id, |p| p.wishes.authorized.is_some()),
            Call::SetTags(id, tags) => {
                assert!(!tags.is_empty());
                named(id, |p| p.wishes.tags.is_some());
                let replaces =
                    |p: &Policy| p.wishes.tags.is_some() && p.ownership.tags == Extent::Exact;
                let before = self.model.devices.get(id).map(|device| &device.tags);
                if !self.told.names(id, replaces) && !self.has_drifted(id) {
                    let kept = before.is_none_or(|before| before.is_subset(tags));
                    assert!(kept, "{call:?} takes tags away: {before:?}");
                }
            }
            Call::SetKeyExpiryDisabled(id, _) => {
                named(id, |p| p.wishes.key_expiry_disabled.is_some());
            }
            Call::SetName(id, _) => named(id, |p| p.wishes.name.is_some()),
            Call::SetIpv4(id, _) => named(id, |p| p.wishes.ipv4.is_some()),
            Call::SetRoutes(id, routes) => {
                let due = self.told.due(id).routes;
                let owns =
                    |p: &Policy| p.wishes.enabled_routes.is_some() || p.wishes.exit_node.is_some();
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
                // What is taken from a device that is let go aside.
                let kept = |exit: bool| {
                    let side =
                        |route: &&Route| route.is_exit_node() == exit && !due.contains(route);
                    before.is_none_or(|before| {
                        before.iter().filter(side).eq(routes.iter().filter(side))
                    })
                };
                if !self.told.names(id, |p| p.wishes.exit_node.is_some()) {
                    assert!(kept(true), "{call:?} touches the exit node: {before:?}");
                }
                if !self.told.names(id, |p| p.wishes.enabled_routes.is_some()) {
                    assert!(kept(false), "{call:?} touches the routes: {before:?}");
                }
                let replaces = |p: &Policy| {
                    p.wishes.enabled_routes.is_some() && p.ownership.enabled_routes == Extent::Exact
                };
                if !self.told.names(id, replaces) {
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
                    for (key, wish) in writes {
                        self.check_attribute(id, key, wish.is_none());
                        if let Some(wish) = wish {
                            self.check_form(&Form::of(key, wish));
                        }
                    }
                }
            }
        }
    }

    /// A key is expired for a policy that has kept that it began, in time, as long as the device has the
    /// key of then.
    fn check_expiry(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.told.devices[id];
        let begun = |(policy, memory): &(Policy, Memory)| {
            let at = policy.wishes.expire_key_at?;
            let record = memory.acts.expiries.get(&at)?;
            let same = record.started.get(id) == Some(&device.expires);
            let joined = device.created.is_some_and(|created| created <= at);
            let known = same && joined && !record.done.contains(id);
            Some(known && may_act(policy, memory) && at >= policy.created && at <= now)
        };
        let holders: Vec<_> = self.told.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "the key of {id} is expired for nobody: {holders:?}");
        assert!(!device.external && !device.key_expiry_disabled);
    }

    /// A device is deleted that all that was told last says to be away, for a policy that has kept that
    /// it began, and that keeps within its count for the day.
    fn check_deletion(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.told.devices[id];
        let away = now.duration_since(device.last_seen.unwrap());
        let begun = |(policy, memory): &(Policy, Memory)| {
            let reap = policy.wishes.reap?;
            let records = &memory.acts.deletions;
            let day = jiff::SignedDuration::from_hours(24);
            let counting = records
                .values()
                .filter(|it| now.duration_since(it.at) < day);
            assert!(counting.count() <= reap.max_per_day as usize, "{records:?}");
            let begun = records.get(id).is_some_and(|record| !record.done);
            let of_many = matches!(policy.target, Target::Fleet(_));
            Some(begun && of_many && may_act(policy, memory) && away >= reap.inactive_for)
        };
        let holders: Vec<_> = self.told.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "{id} is deleted for nobody: {holders:?}");
        assert!(!device.external && device.connected == Some(false));
    }

    /// No call does what the guards forbid.
    fn check_guards(&self, call: &Call) {
        let fields: &[PolicyField] = match call {
            Call::SetAuthorized(..) => &[PolicyField::Authorized],
            Call::SetTags(..) => &[PolicyField::Tags],
            Call::SetKeyExpiryDisabled(..) => &[PolicyField::KeyExpiry],
            Call::WriteAttributes(_) => &[PolicyField::PostureAttributes],
            Call::SetRoutes(..) => &[PolicyField::EnabledRoutes, PolicyField::ExitNode],
            Call::SetName(..) => &[PolicyField::Name],
            Call::SetIpv4(..) => &[PolicyField::Ipv4],
            Call::ExpireKey(_) => &[PolicyField::ExpireKeyAt],
            Call::Delete(_) => &[PolicyField::Reap],
        };
        for id in call.nodes() {
            assert!(self.told.permit(id, fields), "{call:?} is forbidden");
            let Some(device) = self.model.devices.get(id).filter(|_| !self.has_drifted(id)) else {
                continue;
            };
            match call {
                Call::SetTags(_, tags) => {
                    let mut changed = device.tags.symmetric_difference(tags);
                    assert!(changed.all(|tag| self.told.own(id, tag)), "{call:?}");
                }
                Call::SetRoutes(_, routes) => {
                    let before = device.enabled_routes.iter().flatten().copied().collect();
                    let mut changed = routes.symmetric_difference(&before);
                    let own = |route: &Route| route.is_exit_node() || self.told.own(id, route);
                    assert!(changed.all(own), "{call:?}: {before:?}");
                }
                _ => {}
            }
        }
    }

    /// Whether somebody else changed the device too short a while ago for a read to show it.
    fn has_drifted(&self, id: &NodeId) -> bool {
        let drifted = self.drifted.get(id);
        drifted.is_some_and(|at| self.clock < *at + Duration::from_secs(15))
    }

    /// Nobody who takes precedence over those that desire a key in this form desires it in another one:
    /// nobody who may set it somewhere, in a form that the tailnet can have.
    fn check_form(&self, form: &Form) {
        let policies = self.told.policies.values();
        let fleet = Fleet::new(self.told.devices.values().cloned());
        let deciding = policies.filter(|(policy, memory)| {
            let binding = bind_policy(policy, memory, &Approvals::default(), &fleet);
            let field = PolicyField::PostureAttributes;
            let mut targets = binding.nodes();
            policy.mode != Mode::Observe && targets.any(|id| self.told.allows(policy, field, id))
        });
        let deciding = deciding.map(|(policy, _)| policy);
        let present: BTreeSet<Form> = self.told.read.values().flat_map(Form::all).collect();
        let can_hold = |claim: &Form| {
            let mut present = present.iter();
            *claim == *form
                || !self.told.refused.contains(claim)
                    && !present.any(|it| it.key.folded() == claim.key.folded() && it != claim)
        };
        let claims = deciding.flat_map(|policy| {
            let wishes = policy.wishes.attributes.iter().flatten();
            wishes.map(move |(key, wish)| (policy.rank(), key, wish))
        });
        let now = self.wall();
        let first = claims
            .filter(|(_, key, _)| key.folded() == form.key.folded())
            .filter(|(.., wish)| wish.expiry.is_none_or(|expiry| expiry > now))
            .filter(|(_, key, wish)| can_hold(&Form::of(key, wish)))
            .min_by_key(|(rank, ..)| *rank);
        let (rank, key, wish) = first.unwrap();
        assert_eq!(*form, Form::of(key, wish), "{rank:?} decides");
    }

    /// An attribute is written for a policy that is recorded to own it there; and one is deleted only
    /// where some version of that policy has declared it.
    fn check_attribute(&self, id: &NodeId, key: &AttributeKey, deletes: bool) {
        let device = self.told.devices.get(id);
        let owned = |(policy, memory): &(Policy, Memory)| {
            let recorded = device.is_some_and(|device| memory.owned.at(device).contains(key));
            let fact = (policy.uid.clone(), key.clone(), id.clone());
            may_act(policy, memory)
                && policy.wishes.attributes.is_some()
                && ((recorded && (!deletes || self.told.managed.contains(&fact)))
                    || policy.ownership.attributes == AttributesExtent::Exact)
        };
        let holders: Vec<_> = self.told.holders(id).collect();
        assert!(
            holders.iter().any(|holder| owned(holder)) || self.told.due(id).keys.contains(key),
            "{key} of {id} is owned by no policy: {holders:?}"
        );
    }
}
