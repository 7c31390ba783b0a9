use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    ActRecords, Allowance, Approvals, AttributesExtent, Belongings, Bound, Deletion,
    DeletionRecord, DeviceTarget, Disruption, ExpiryRecord, Extent, Glob, Holdings, Identity,
    LookRequest, Memory, Mode, OwnedKeys, Ownership, Policy, PolicyKey, Reap, Selector, Suspender,
    Target, Wishes,
};
use crate::{
    api::{
        self, DeviceReference, DeviceSelector, KeyExpiry, PostureAttribute,
        TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus,
    },
    model::{
        AttributeKey, AttributeString, AttributeValue, AttributeWish, Refused, Route, SafeInteger,
    },
};

/// A policy as it was declared: parsed, or refused whole with all its faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Where it is kept.
    pub key: PolicyKey,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// The policy, or its faults, each with the path of the field.
    pub policy: Result<Policy, Vec<String>>,
    /// What its status remembers.
    pub memory: Memory,
    /// The looks that its annotations ask for.
    pub request: LookRequest,
    /// What its annotation approves.
    pub approvals: Approvals,
    /// What else is known of the object.
    pub standing: Standing,
    /// It is being deleted, and kept until what it put on devices is cleared, or until nothing could be
    /// cleared for so long.
    pub leaving: Option<Duration>,
}

/// What is known of the object of a policy besides its spec and its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What an invalid spec still declares for certain.
    pub readable: Option<Policy>,
    /// The object cannot be read as a whole, and somebody has written a status to it: nothing is written
    /// to it, as that could lose what this version does not know.
    pub left_alone: bool,
    /// The finalizer is missing.
    pub lacks_finalizer: bool,
}

/// Parses a policy. The API server's rules refuse most faults at apply; what is found here was
/// kept before a rule existed, or comes from a file that no API server has seen.
#[must_use]
pub fn parse(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
) -> Declared {
    parse_readable(key, uid, generation, created, spec, status, &[])
}

/// Parses what can be read of a policy; `unread` are the fields of its spec that cannot.
#[must_use]
pub fn parse_readable(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
    unread: &[String],
) -> Declared {
    let mut faults = Faults::default();
    let target = faults.target(spec);
    let wishes = faults.wishes(spec);
    let policy = Policy {
        key: key.clone(),
        uid: uid.clone(),
        generation,
        priority: spec.priority.unwrap_or_default(),
        created,
        target,
        wishes,
        ownership: ownership(spec),
        mode: mode(spec),
        allowance: Allowance::default(),
        allowed: spec
            .allow_disruption
            .iter()
            .copied()
            .map(Disruption::from)
            .collect(),
        deletion: deletion(spec),
    };
    for field in unread {
        faults.add(field, "this version of the controller cannot read it");
    }
    let memory = status.map(|status| memory(status, &uid, spec.tailnet_name()));
    let memory = memory.unwrap_or_default();
    let mut standing = Standing::default();
    let policy = if faults.0.is_empty() {
        Ok(policy)
    } else {
        standing.readable = policy.readable_part(&faults.0, &memory);
        Err(faults.0)
    };
    Declared {
        key,
        generation,
        policy,
        memory,
        standing,
        request: LookRequest::default(),
        approvals: Approvals::default(),
        leaving: None,
        uid,
    }
}

/// Parses a reference to a device.
pub fn parse_target(device: &DeviceReference) -> Result<DeviceTarget, Vec<String>> {
    let mut faults = Faults::default();
    let target = faults.device(device);
    if faults.0.is_empty() {
        Ok(target)
    } else {
        Err(faults.0)
    }
}

/// Parses a selector of devices.
pub fn parse_selector(selector: &DeviceSelector) -> Result<Selector, Vec<String>> {
    let mut faults = Faults::default();
    let selector = faults.selector(selector);
    if faults.0.is_empty() {
        Ok(selector)
    } else {
        Err(faults.0)
    }
}

/// What a status remembers. An entry that cannot be read is one that we did not write; it is left.
/// The devices and keys of another tailnet are none of this one.
fn memory(status: &TailscaleDevicePolicyStatus, uid: &str, tailnet: &str) -> Memory {
    let is_of_tailnet = status.tailnet.as_ref().is_none_or(|of| of == tailnet);
    let owned = is_of_tailnet.then(|| OwnedKeys::of_status(status, uid));
    let bound = || {
        Some(Bound {
            node: status.node_id.as_deref()?.parse().ok()?,
            owner: status.node_owner.as_deref()?.parse().ok()?,
            named: status.bound_as.clone()?,
        })
    };
    let hash = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    Memory {
        bound: bound().filter(|_| is_of_tailnet),
        owned: Arc::new(owned.unwrap_or_default()),
        handled: status.last_handled_reconcile_at.clone(),
        approvals_used: status.approvals_used.unwrap_or_default(),
        approved: hash(status.last_approved_plan.as_ref()),
        held: hash(status.held_plan.as_ref().map(|held| &held.hash)),
        holdings: Arc::new(status.holdings.as_ref().map(holdings).unwrap_or_default()),
        acts: Arc::new(status.act_records.as_ref().map(acts).unwrap_or_default()),
    }
}

fn acts(status: &api::ActRecords) -> ActRecords {
    let mut acts = ActRecords::default();
    for kept in &status.key_expiries {
        let Ok(at) = kept.at.parse() else {
            continue;
        };
        let record: &mut ExpiryRecord = acts.expiries.entry(at).or_default();
        let started = kept.started.iter().filter_map(|started| {
            let before = started.expires_before.as_ref().map(|time| time.parse());
            Some((started.node_id.parse().ok()?, before.transpose().ok()?))
        });
        record.started.extend(started);
        record
            .done
            .extend(readable(&kept.done, |id| id.parse().ok()));
        record.missed_told |= kept.missed_told;
    }
    let deletions = status.deletions.iter().filter_map(|kept| {
        let record = DeletionRecord {
            at: kept.at.0,
            name: kept.name.clone(),
            done: kept.done,
        };
        Some((kept.node_id.parse().ok()?, record))
    });
    acts.deletions.extend(deletions);
    let dropped = status.dropped_until.as_ref();
    acts.dropped_until = dropped.and_then(|time| time.parse().ok());
    acts
}

fn holdings(status: &api::Holdings) -> Holdings {
    let mut let_go: BTreeMap<Belongings, BTreeSet<_>> = BTreeMap::new();
    for group in &status.let_go {
        let belongings = Belongings {
            keys: readable(&group.attributes, |key| key.parse().ok()),
            routes: readable(&group.routes, |route| Route::reported(route).ok()),
        };
        let nodes = readable(&group.node_ids, |id| id.parse().ok());
        let_go.entry(belongings).or_default().extend(nodes);
    }
    let partly = status.partly_managed.iter().flat_map(|group| {
        let routes: BTreeSet<Route> = readable(&group.routes, |route| Route::reported(route).ok());
        let nodes = group.node_ids.iter().filter_map(|id| id.parse().ok());
        nodes.map(move |id| (id, routes.clone()))
    });
    Holdings {
        nodes: readable(&status.node_ids, |id| id.parse().ok()),
        routes: readable(&status.routes, |route| Route::reported(route).ok()),
        partly: partly.collect(),
        let_go,
    }
}

fn readable<T: Ord>(texts: &[String], read: impl Fn(&str) -> Option<T>) -> BTreeSet<T> {
    texts.iter().filter_map(|text| read(text)).collect()
}

fn deletion(spec: &TailscaleDevicePolicySpec) -> Deletion {
    match spec.deletion_policy {
        Some(api::DeletionPolicy::Clear) => Deletion::Clear,
        Some(api::DeletionPolicy::Retain) | None => Deletion::Retain,
    }
}

fn ownership(spec: &TailscaleDevicePolicySpec) -> Ownership {
    let given = spec.ownership.unwrap_or_default();
    let list = |given: Option<api::ListOwnership>| match given {
        Some(api::ListOwnership::AtLeast) => Extent::AtLeast,
        Some(api::ListOwnership::Exact) | None => Extent::Exact,
    };
    Ownership {
        tags: list(given.tags),
        enabled_routes: list(given.enabled_routes),
        attributes: match given.posture_attributes {
            Some(api::AttributesOwnership::Exact) => AttributesExtent::Exact,
            Some(api::AttributesOwnership::Named) | None => AttributesExtent::Named,
        },
    }
}

/// A policy that observes decides nothing, suspended or not.
fn mode(spec: &TailscaleDevicePolicySpec) -> Mode {
    match (spec.enforcement(), spec.suspend) {
        (api::Enforcement::Observe, _) => Mode::Observe,
        (api::Enforcement::Enforce | api::Enforcement::Approve, Some(true)) => {
            Mode::Suspended(Suspender::Policy)
        }
        (api::Enforcement::Enforce, Some(false) | None) => Mode::Enforce,
        (api::Enforcement::Approve, Some(false) | None) => Mode::Approve,
    }
}

/// Collects every fault, so that all can be mended at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, path: &str, fault: impl Display) {
        self.0.push(format!("spec.{path}: {fault}"));
    }

    fn one<T: FromStr<Err: Display>>(&mut self, path: &str, text: Option<&String>) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(fault) => {
                self.add(path, fault);
                None
            }
        }
    }

    fn set<T: FromStr<Err: Display> + Ord>(&mut self, path: &str, texts: &[String]) -> BTreeSet<T> {
        let parsed = texts.iter().enumerate();
        parsed
            .filter_map(|(i, text)| self.one(&format!("{path}[{i}]"), Some(text)))
            .collect()
    }

    fn time(&mut self, path: &str, text: Option<&String>) -> Option<Timestamp> {
        let text = text?;
        let time = text.parse().ok();
        if time.is_none() {
            let fault = format!("'{text}' is no time: write one such as 2027-01-01T00:00:00Z");
            self.add(path, fault);
        }
        time
    }

    fn target(&mut self, spec: &TailscaleDevicePolicySpec) -> Target {
        match (&spec.device, &spec.device_selector) {
            (Some(device), None) => Target::Device(self.device(device)),
            (None, Some(selector)) => {
                for (path, given) in [("name", spec.name.is_some()), ("ipv4", spec.ipv4.is_some())]
                {
                    if given {
                        self.add(
                            path,
                            "no two devices can have one: write device instead of deviceSelector",
                        );
                    }
                }
                Target::Fleet(self.selector(selector))
            }
            _ => {
                self.add("device", "write exactly one of device and deviceSelector");
                Target::Fleet(Selector::default())
            }
        }
    }

    fn selector(&mut self, selector: &DeviceSelector) -> Selector {
        let given = [
            &selector.tags,
            &selector.users,
            &selector.hostnames,
            &selector.os,
        ];
        let nothing = given == [&None; 4] && selector.expression.is_none();
        if nothing || given.into_iter().flatten().any(Vec::is_empty) {
            self.add(
                "deviceSelector",
                "write at least one of tags, users, hostnames, os and expression, none empty",
            );
        }
        let facts = selector.tags.is_some() || selector.users.is_some();
        if !facts && selector.trust_claims != Some(true) {
            self.add(
                "deviceSelector",
                "a machine chooses its hostname and what it says of its system: write tags or users \
                 too, or trustClaims: true",
            );
        }
        let texts = |texts: &Option<Vec<String>>| texts.clone().unwrap_or_default();
        let tags = selector.tags.as_deref().unwrap_or_default();
        Selector {
            tags: self.set("deviceSelector.tags", tags),
            tag_patterns: Vec::new(),
            users: texts(&selector.users)
                .iter()
                .map(|text| Glob::new(text))
                .collect(),
            hostnames: texts(&selector.hostnames)
                .iter()
                .map(|text| Glob::lower_case(text))
                .collect(),
            os: texts(&selector.os),
            expression: self.one("deviceSelector.expression", selector.expression.as_ref()),
        }
    }

    fn device(&mut self, device: &DeviceReference) -> DeviceTarget {
        let node_id = self.one("device.nodeId", device.node_id.as_ref());
        let identities: Vec<Identity> = [
            node_id.map(Identity::NodeId),
            device.id.clone().map(Identity::LegacyId),
            device.name.clone().map(Identity::Name),
            device.hostname.clone().map(Identity::Hostname),
        ]
        .into_iter()
        .flatten()
        .collect();
        let identity = if let [identity] = identities.as_slice() {
            identity.clone()
        } else {
            self.add(
                "device",
                "write exactly one of nodeId, id, name and hostname",
            );
            Identity::Hostname(String::new())
        };
        DeviceTarget {
            identity,
            tags: self.set("device.tags", device.tags.as_deref().unwrap_or_default()),
            users: device.users.clone().unwrap_or_default(),
        }
    }

    fn wishes(&mut self, spec: &TailscaleDevicePolicySpec) -> Wishes {
        let all_tags = ownership(spec).tags == Extent::Exact;
        if all_tags && spec.tags.as_ref().is_some_and(Vec::is_empty) {
            self.add(
                "tags",
                "the API cannot take the last tag from a device: leave the field out, or write \
                 ownership: {tags: AtLeast}",
            );
        }
        let deauthorizes = spec.authorized == Some(false);
        if deauthorizes
            && !spec
                .allow_disruption
                .contains(&api::Disruption::Deauthorize)
        {
            self.add(
                "authorized",
                "false cuts the device off: write allowDisruption: [Deauthorize] too",
            );
        }
        let (expire_key_at, reap) = self.acts(spec);
        Wishes {
            authorized: spec.authorized,
            tags: spec.tags.as_ref().map(|tags| self.set("tags", tags)),
            key_expiry_disabled: spec.key_expiry.map(|wish| wish == KeyExpiry::Disabled),
            enabled_routes: spec
                .enabled_routes
                .as_ref()
                .map(|routes| self.set("enabledRoutes", routes)),
            exit_node: spec.exit_node,
            attributes: spec
                .posture_attributes
                .as_ref()
                .map(|wishes| self.attributes(wishes)),
            name: self.one("name", spec.name.as_ref()),
            ipv4: self.one("ipv4", spec.ipv4.as_ref()),
            expire_key_at,
            reap,
            unreadable: BTreeSet::new(),
        }
    }

    fn acts(&mut self, spec: &TailscaleDevicePolicySpec) -> (Option<Timestamp>, Option<Reap>) {
        let at = self.time("expireKeyAt", spec.expire_key_at.as_ref());
        if at.is_some() && spec.key_expiry == Some(KeyExpiry::Disabled) {
            self.add(
                "expireKeyAt",
                "a key whose expiry is disabled goes on working when it is expired: write keyExpiry: \
                 Enabled, or leave one of the two out",
            );
        }
        let Some(reap) = &spec.reap else {
            return (at, None);
        };
        if spec.device_selector.is_none() {
            self.add(
                "reap",
                "write deviceSelector instead of device, or leave reap out",
            );
        }
        let inactive_for = self.value_of("reap.inactiveFor", reap.inactive_for());
        let inactive_for = inactive_for.and_then(|length| SignedDuration::try_from(length).ok());
        let max_per_day = self.value_of("reap.maxPerDay", reap.max_per_day());
        let reap = inactive_for.zip(max_per_day);
        let reap = reap.map(|(inactive_for, max_per_day)| Reap {
            inactive_for,
            max_per_day,
        });
        (at, reap)
    }

    fn value_of<T>(&mut self, path: &str, value: Result<T, Refused>) -> Option<T> {
        value.map_err(|refused| self.add(path, refused)).ok()
    }

    fn attributes(
        &mut self,
        wishes: &BTreeMap<String, PostureAttribute>,
    ) -> BTreeMap<AttributeKey, AttributeWish> {
        let mut parsed: BTreeMap<AttributeKey, AttributeWish> = BTreeMap::new();
        for (name, wish) in wishes {
            let path = format!("postureAttributes[{name}]");
            let key: Option<AttributeKey> = self.one(&path, Some(name));
            let value = self.value(&path, wish);
            let expiry = self.time(&format!("{path}.expiry"), wish.expiry.as_ref());
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            if let Some(other) = parsed.keys().find(|other| other.folded() == key.folded()) {
                let fault = format!("differs from {other} only in case: keep one of the two");
                self.add(&path, fault);
            }
            parsed.insert(key, AttributeWish { value, expiry });
        }
        parsed
    }

    fn value(&mut self, path: &str, wish: &PostureAttribute) -> Option<AttributeValue> {
        match (&wish.string, wish.integer, wish.boolean) {
            (Some(text), None, None) => self
                .one::<AttributeString>(&format!("{path}.string"), Some(text))
                .map(AttributeValue::String),
            (None, Some(number), None) => match SafeInteger::try_from(number) {
                Ok(number) => Some(AttributeValue::Integer(number)),
                Err(fault) => {
                    self.add(&format!("{path}.integer"), fault);
                    None
                }
            },
            (None, None, Some(flag)) => Some(AttributeValue::Boolean(flag)),
            _ => {
                self.add(path, "write exactly one of string, integer and boolean");
                None
            }
        }
    }
}

impl From<api::Disruption> for Disruption {
    fn from(allowed: api::Disruption) -> Self {
        match allowed {
            api::Disruption::Deauthorize => Self::Deauthorize,
            api::Disruption::ExpiredKey => Self::ExpiredKey,
            api::Disruption::FirstTag => Self::FirstTag,
        }
    }
}
