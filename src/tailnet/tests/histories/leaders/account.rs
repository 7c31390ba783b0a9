//! The complete history: all stored versions and all actions of people, independent of any process.

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

/// The hourly limit of changed devices in a limited history, and the daily limit of deletions.
pub const LIMIT: u32 = 3;
pub const DELETED_A_DAY: u32 = 2;

/// The time span in which something was true.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: Duration,
    until: Option<Duration>,
}

impl Span {
    fn since(from: Duration) -> Self {
        Self { from, until: None }
    }

    /// Whether it was true at any time since `then`.
    pub(super) fn held_since(self, then: Duration) -> bool {
        self.until.is_none_or(|until| until >= then)
    }

    /// Whether it was true all the time since `then` and still is.
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
    /// Whether the policy may send anything.
    pub(super) fn may_send(&self) -> bool {
        matches!(self.policy.mode, Mode::Enforce | Mode::Approve) && !self.deleting
    }

    pub(super) fn declares(&self, key: &AttributeKey) -> bool {
        let attributes = self.policy.desired.attributes.as_ref();
        self.may_send() && attributes.is_some_and(|attributes| attributes.contains_key(key))
    }
}

#[derive(Debug, Default)]
pub struct Account {
    specs: BTreeMap<PolicyKey, Vec<Spec>>,
    settings: Vec<(Span, Settings)>,
    /// The tags of devices over time.
    tags: BTreeMap<(NodeId, Tag), Vec<Span>>,
    /// Attributes that a person set while no policy declared or owned them.
    human: BTreeMap<(NodeId, AttributeKey), Duration>,
    /// When a person last changed a device.
    drifted: BTreeMap<NodeId, Duration>,
    /// The number of approvals of each object.
    given: BTreeMap<String, u32>,
    /// The last change of a device by an approval, by the number of approvals given until then.
    applied: BTreeMap<(String, NodeId), (u32, Duration)>,
    /// The number of used approvals in the status of each object.
    used: BTreeMap<String, u32>,
    changed: Vec<(Duration, NodeId)>,
    pub limited: bool,
    /// The declared times of key expiries.
    pub times: BTreeSet<Timestamp>,
}

impl Account {
    // --- Events ---

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
            let before = self.used.get(&object.policy.uid);
            assert!(
                before <= Some(&used),
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
        // If someone reverts a change at once, the approval of that change may still be in use.
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

    /// A leader knows that a status is stored, and may send what it has approved: no later one may forget that.
    pub fn note_used(&mut self, uid: &str, used: u32) {
        let noted = self.used.entry(uid.to_owned()).or_default();
        *noted = used.max(*noted);
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

    /// The policy that requires approval has changed a device: each approval covers one such change.
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

    /// The random events end, and the limit is lifted.
    pub fn calm(&mut self, now: Duration, store: &Store) {
        self.limited = false;
        self.note_store(now, store);
    }

    // --- Queries about the past ---

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

    /// Whether a policy has targeted a device all the time since then.
    pub(super) fn targets(&self, policy: &Policy, id: &NodeId, since: Duration) -> bool {
        self.matches(policy, id, |span| span.holds_since(since))
    }

    /// When a person set an attribute that no policy declared or owned then.
    pub(super) fn set_by_person(&self, id: &NodeId, key: &AttributeKey) -> Option<Duration> {
        self.human.get(&(id.clone(), key.clone())).copied()
    }

    /// Whether a person changed the device so recently that a read may not show it.
    pub(super) fn has_drifted(&self, id: &NodeId, now: Duration) -> bool {
        let drifted = self.drifted.get(id);
        drifted.is_some_and(|at| now < *at + READ_WITHIN)
    }
}

/// The device of a hostname. Hostnames never change here.
fn named(hostname: &str) -> NodeId {
    let number = hostname.trim_start_matches("host-");
    node_id(number.parse().unwrap())
}
