//! All that was ever stored, and what people did: beside what any process knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::model::{Model, node_id},
    check::{READ_WITHIN, SEEN_WITHIN},
    store::Store,
};
use crate::{
    model::{AttributeKey, Device, NodeId, Tag},
    plan::{Call, Identity, Mode, Policy, PolicyKey, Target},
    tailnet::Settings,
};

/// How many devices may be changed within an hour in a limited history, and deleted within a day.
pub const LIMIT: u32 = 3;
pub const DELETED_A_DAY: u32 = 2;

/// From when on something held, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: Duration,
    until: Option<Duration>,
}

impl Span {
    fn since(from: Duration) -> Self {
        Self { from, until: None }
    }

    /// Whether it held at any time since then.
    pub(super) fn held_since(self, then: Duration) -> bool {
        self.until.is_none_or(|until| until >= then)
    }

    /// Whether it has held all the time since then, and still does.
    pub(super) fn holds_since(self, then: Duration) -> bool {
        self.from <= then && self.until.is_none()
    }
}

/// A version of a policy's spec.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) span: Span,
    pub(super) policy: Policy,
    deleting: bool,
}

impl Spec {
    /// Whether anything may be sent for what it declares.
    pub(super) fn acts(&self) -> bool {
        matches!(self.policy.mode, Mode::Enforce | Mode::Approve) && !self.deleting
    }

    pub(super) fn declares(&self, key: &AttributeKey) -> bool {
        let attributes = self.policy.desired.attributes.as_ref();
        self.acts() && attributes.is_some_and(|attributes| attributes.contains_key(key))
    }
}

#[derive(Debug, Default)]
pub struct Account {
    specs: BTreeMap<PolicyKey, Vec<Spec>>,
    settings: Vec<(Span, Settings)>,
    /// Which tags devices had.
    tags: BTreeMap<(NodeId, Tag), Vec<Span>>,
    /// Attributes that a person has set and that nothing declared or owned then.
    human: BTreeMap<(NodeId, AttributeKey), Duration>,
    /// When a person changed a device last.
    drifted: BTreeMap<NodeId, Duration>,
    /// How many approvals each object was given.
    given: BTreeMap<String, u32>,
    /// By the approvals given until then, the last change that an approval made on a device.
    applied: BTreeMap<(String, NodeId), (u32, Duration)>,
    /// How many approvals the status of an object said to be used.
    used: BTreeMap<String, u32>,
    changed: Vec<(Duration, NodeId)>,
    pub limited: bool,
    /// The times for which keys are to be expired.
    pub times: BTreeSet<Timestamp>,
}

impl Account {
    // --- What happens ---

    /// The store has changed.
    pub fn note_store(&mut self, now: Duration, store: &Store) {
        for (key, specs) in &mut self.specs {
            let stored = store.policies.get(key);
            for spec in specs.iter_mut().filter(|spec| spec.span.until.is_none()) {
                let same = stored.is_some_and(|stored| {
                    stored.policy == spec.policy && stored.deleting == spec.deleting
                });
                if !same {
                    spec.span.until = Some(now);
                }
            }
        }
        for (key, object) in &store.policies {
            let specs = self.specs.entry(key.clone()).or_default();
            if specs.last().is_none_or(|last| last.span.until.is_some()) {
                specs.push(Spec {
                    span: Span::since(now),
                    policy: object.policy.clone(),
                    deleting: object.deleting,
                });
            }
            let used = object.record.approvals_used;
            let before = self.used.insert(object.policy.uid.clone(), used);
            assert!(
                before <= Some(used),
                "{key}: {before:?} approvals used, then {used}"
            );
        }
        let settings = &store.tailnet.settings;
        if let Some((span, last)) = self.settings.last_mut() {
            if last == settings {
                return;
            }
            span.until = Some(now);
        }
        self.settings.push((Span::since(now), settings.clone()));
    }

    /// The tags of devices may have changed.
    pub fn note_tags(&mut self, now: Duration, model: &Model) {
        for ((id, tag), spans) in &mut self.tags {
            let has = model
                .devices
                .get(id)
                .is_some_and(|device| device.tags.contains(tag));
            if let Some(span) = spans.last_mut().filter(|span| span.until.is_none() && !has) {
                span.until = Some(now);
            }
        }
        for device in model.devices.values() {
            for tag in &device.tags {
                let spans = self.tags.entry((device.node_id.clone(), tag.clone()));
                let spans = spans.or_default();
                if spans.last().is_none_or(|span| span.until.is_some()) {
                    spans.push(Span::since(now));
                }
            }
        }
    }

    /// A person changes a device.
    pub fn note_drift(&mut self, now: Duration, id: &NodeId) {
        self.drifted.insert(id.clone(), now);
        // Whoever changes back at once what an approval has just done may find it still at work.
        self.applied
            .retain(|(_, device), (_, at)| device != id || now > *at + SEEN_WITHIN);
    }

    /// A person sets an attribute.
    pub fn note_human(
        &mut self,
        now: Duration,
        id: &NodeId,
        key: &AttributeKey,
        on: (&Store, &Device),
    ) {
        let (store, device) = on;
        let owned = store.policies.values().any(|object| {
            let record = &object.record;
            record.owned.at(device).contains(key) || record.managed.due(id).keys.contains(key)
        });
        if !owned {
            self.human.insert((id.clone(), key.clone()), now);
        }
    }

    pub fn note_approval(&mut self, uid: &str) {
        *self.given.entry(uid.to_owned()).or_default() += 1;
    }

    /// A call took effect.
    pub fn note_effect(&mut self, now: Duration, call: &Call, before: &Model, after: &Model) {
        self.note_tags(now, after);
        for id in call.nodes() {
            self.changed.push((now, id.clone()));
        }
        if self.limited {
            let recent = now.saturating_sub(Duration::from_mins(59));
            let recent = self.changed.iter().filter(|(at, _)| *at >= recent);
            let devices: BTreeSet<&NodeId> = recent.map(|(_, id)| id).collect();
            assert!(
                devices.len() <= LIMIT as usize,
                "{call:?}: {devices:?} within an hour"
            );
        }
        if let Call::WriteAttributes(nodes) = call {
            let asked: AttributeKey = "custom:a".parse().unwrap();
            for id in nodes.keys() {
                let value = |model: &Model| model.attributes.get(id)?.get(&asked).cloned();
                if value(before) != value(after) {
                    self.use_approval(now, id);
                }
            }
        }
        let expired = after.expired.len();
        assert!(
            expired <= self.times.len(),
            "{:?} for {:?}",
            after.expired,
            self.times
        );
        let day = SignedDuration::from_hours(24);
        for (at, _) in &after.deleted {
            let within = after
                .deleted
                .iter()
                .filter(|(it, _)| it >= at && *it < *at + day);
            assert!(
                within.count() <= DELETED_A_DAY as usize,
                "{:?}",
                after.deleted
            );
        }
    }

    /// The policy that asks has changed a device: each of its approvals does that once.
    fn use_approval(&mut self, now: Duration, id: &NodeId) {
        let uid = self.specs.values().flatten().rev();
        let uid = uid
            .filter(|spec| spec.policy.mode == Mode::Approve)
            .max_by_key(|spec| spec.span.from);
        let uid = uid.unwrap().policy.uid.clone();
        let given = self.given.get(&uid).copied().unwrap_or_default();
        let before = self.applied.insert((uid, id.clone()), (given, now));
        let used = before.map_or(0, |(given, _)| given);
        assert!(
            given > used,
            "{id} is changed, and {given} approvals were given, {used} used"
        );
    }

    /// People have stopped: the limit is lifted.
    pub fn calm(&mut self, now: Duration, store: &Store) {
        self.limited = false;
        self.note_store(now, store);
    }

    // --- What it was at some time ---

    pub(super) fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.specs.values().flatten()
    }

    /// Whether nothing could be sent at any time since then.
    pub(super) fn was_suspended(&self, since: Duration) -> bool {
        let settings = self.settings.iter();
        let mut settings = settings.filter(|(span, _)| span.held_since(since));
        settings.all(|(_, settings)| settings.guardrails.suspended())
    }

    fn had(&self, id: &NodeId, tag: &Tag, held: impl Fn(Span) -> bool) -> bool {
        let spans = self.tags.get(&(id.clone(), tag.clone()));
        spans.is_some_and(|spans| spans.iter().any(|span| held(*span)))
    }

    fn matches(&self, policy: &Policy, id: &NodeId, held: impl Fn(Span) -> bool) -> bool {
        match &policy.target {
            Target::Device(target) => match &target.identity {
                Identity::Hostname(name) => *id == named(name),
                identity => *identity == Identity::NodeId(id.clone()),
            },
            Target::Selector(selector) => selector.tags.iter().all(|tag| self.had(id, tag, &held)),
        }
    }

    /// Whether a policy may have targeted a device at any time since then.
    pub(super) fn may_target(&self, policy: &Policy, id: &NodeId, since: Duration) -> bool {
        self.matches(policy, id, |span| span.held_since(since))
    }

    /// Whether it has targeted it all the time since then.
    pub(super) fn targets(&self, policy: &Policy, id: &NodeId, since: Duration) -> bool {
        self.matches(policy, id, |span| span.holds_since(since))
    }

    /// When a person set an attribute that nothing declared or owned then.
    pub(super) fn set_by_person(&self, id: &NodeId, key: &AttributeKey) -> Option<Duration> {
        self.human.get(&(id.clone(), key.clone())).copied()
    }

    /// Whether a person changed the device too short a while ago for a read to show it.
    pub(super) fn has_drifted(&self, id: &NodeId, now: Duration) -> bool {
        let drifted = self.drifted.get(id);
        drifted.is_some_and(|at| now < *at + READ_WITHIN)
    }
}

/// The device of a hostname: nobody changes one here.
fn named(hostname: &str) -> NodeId {
    let number = hostname.trim_start_matches("host-");
    node_id(number.parse().unwrap())
}
