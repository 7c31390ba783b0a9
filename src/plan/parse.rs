use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    ActionRecords, AllowedRules, Approvals, AttributesOwnership, Bound, DeleteInactive, Deletion,
    DeletionRecord, DesiredSettings, DeviceTarget, Disruption, ExpiryRecord, Glob, Identity,
    ListOwnership, ManagedDevices, ManagedSettings, Mode, OwnedKeys, Ownership, Policy, PolicyKey,
    PolicyRecord, ReconcileRequest, Selector, Suspender, Target,
};
use crate::{
    api::{
        self, DeviceReference, DeviceSelector, KeyExpiry, PostureAttribute,
        TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus,
    },
    model::{
        AttributeKey, AttributeString, AttributeValue, DesiredAttribute, Refused, Route,
        SafeInteger,
    },
};

/// A policy as it was declared: parsed, or refused with all of its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInput {
    /// Its namespace and name.
    pub key: PolicyKey,
    /// Distinguishes it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// The policy, or its errors, each with the path of the field.
    pub policy: Result<Policy, Vec<String>>,
    /// What its status records.
    pub record: PolicyRecord,
    /// The reconcile requests in its annotations.
    pub request: ReconcileRequest,
    /// The approvals in its annotation.
    pub approvals: Approvals,
    /// The other state of the object.
    pub status_state: StatusState,
    /// Set while the object is being deleted: its finalizer stays until its devices are cleared, or until
    /// nothing could be cleared for this long.
    pub deleting: Option<Duration>,
}

/// The state of a policy's object besides its spec and its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusState {
    /// The part of an invalid spec that can still be read.
    pub readable: Option<Policy>,
    /// The object cannot be read as a whole, and has a status: the controller writes nothing to it, because a
    /// write could lose fields that this version does not know.
    pub left_alone: bool,
    /// The finalizer is missing.
    pub lacks_finalizer: bool,
}

/// Parses a policy. The API server's rules refuse most errors at apply. An error here is in an object that is
/// older than the rule, or in a file.
#[must_use]
pub fn parse(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
) -> PolicyInput {
    parse_readable(key, uid, generation, created, spec, status, &[])
}

/// Parses the readable part of a policy; `unread` are the unreadable fields of its spec.
#[must_use]
pub fn parse_readable(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
    unread: &[String],
) -> PolicyInput {
    let mut errors = SpecErrors::default();
    let target = errors.target(spec);
    let desired = errors.desired(spec);
    let policy = Policy {
        key: key.clone(),
        uid: uid.clone(),
        generation,
        priority: spec.priority.unwrap_or_default(),
        created,
        target,
        desired,
        ownership: ownership(spec),
        mode: mode(spec),
        allowance: AllowedRules::default(),
        allowed: spec
            .allow_disruption
            .iter()
            .copied()
            .map(Disruption::from)
            .collect(),
        deletion: deletion(spec),
    };
    for field in unread {
        errors.add(field, "this version of the controller cannot read it");
    }
    let record = status.map(|status| record(status, &uid, spec.tailnet_name()));
    let record = record.unwrap_or_default();
    let mut status_state = StatusState::default();
    let policy = if errors.0.is_empty() {
        Ok(policy)
    } else {
        status_state.readable = policy.readable_part(&errors.0, &record);
        Err(errors.0)
    };
    PolicyInput {
        key,
        generation,
        policy,
        record,
        status_state,
        request: ReconcileRequest::default(),
        approvals: Approvals::default(),
        deleting: None,
        uid,
    }
}

/// Parses a reference to a device.
pub fn parse_target(device: &DeviceReference) -> Result<DeviceTarget, Vec<String>> {
    let mut errors = SpecErrors::default();
    let target = errors.device(device);
    if errors.0.is_empty() {
        Ok(target)
    } else {
        Err(errors.0)
    }
}

/// Parses a selector of devices.
pub fn parse_selector(selector: &DeviceSelector) -> Result<Selector, Vec<String>> {
    let mut errors = SpecErrors::default();
    let selector = errors.selector(selector);
    if errors.0.is_empty() {
        Ok(selector)
    } else {
        Err(errors.0)
    }
}

/// The record in a status. An unreadable entry is not one that the controller wrote, and is ignored. Bound
/// devices and keys of another tailnet do not count.
fn record(status: &TailscaleDevicePolicyStatus, uid: &str, tailnet: &str) -> PolicyRecord {
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
    PolicyRecord {
        bound: bound().filter(|_| is_of_tailnet),
        owned: Arc::new(owned.unwrap_or_default()),
        handled: status.last_handled_reconcile_at.clone(),
        approvals_used: status.approvals_used.unwrap_or_default(),
        approved: hash(status.last_approved_plan.as_ref()),
        held: hash(status.held_plan.as_ref().map(|held| &held.hash)),
        managed: Arc::new(
            status
                .managed_devices
                .as_ref()
                .map(managed)
                .unwrap_or_default(),
        ),
        actions: Arc::new(
            status
                .action_records
                .as_ref()
                .map(actions)
                .unwrap_or_default(),
        ),
    }
}

fn actions(status: &api::ActionRecords) -> ActionRecords {
    let mut actions = ActionRecords::default();
    for kept in &status.key_expiries {
        let Ok(at) = kept.at.parse() else {
            continue;
        };
        let record: &mut ExpiryRecord = actions.expiries.entry(at).or_default();
        let started = kept.started.iter().filter_map(|started| {
            let before = started.expires_before.as_ref().map(|time| time.parse());
            Some((started.node_id.parse().ok()?, before.transpose().ok()?))
        });
        record.started.extend(started);
        record
            .done
            .extend(readable(&kept.done, |id| id.parse().ok()));
        record.missed_reported |= kept.missed_reported;
    }
    let deletions = status.deletions.iter().filter_map(|kept| {
        let record = DeletionRecord {
            at: kept.at.0,
            name: kept.name.clone(),
            done: kept.done,
        };
        Some((kept.node_id.parse().ok()?, record))
    });
    actions.deletions.extend(deletions);
    let dropped = status.dropped_until.as_ref();
    actions.dropped_until = dropped.and_then(|time| time.parse().ok());
    actions
}

fn managed(status: &api::ManagedDevices) -> ManagedDevices {
    let mut released: BTreeMap<ManagedSettings, BTreeSet<_>> = BTreeMap::new();
    for group in &status.released {
        let settings = ManagedSettings {
            keys: readable(&group.attributes, |key| key.parse().ok()),
            routes: readable(&group.routes, |route| Route::reported(route).ok()),
        };
        let nodes = readable(&group.node_ids, |id| id.parse().ok());
        released.entry(settings).or_default().extend(nodes);
    }
    let partly = status.partly_managed.iter().flat_map(|group| {
        let routes: BTreeSet<Route> = readable(&group.routes, |route| Route::reported(route).ok());
        let nodes = group.node_ids.iter().filter_map(|id| id.parse().ok());
        nodes.map(move |id| (id, routes.clone()))
    });
    ManagedDevices {
        nodes: readable(&status.node_ids, |id| id.parse().ok()),
        routes: readable(&status.routes, |route| Route::reported(route).ok()),
        partly: partly.collect(),
        released,
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
        Some(api::ListOwnership::AtLeast) => ListOwnership::AtLeast,
        Some(api::ListOwnership::Exact) | None => ListOwnership::Exact,
    };
    Ownership {
        tags: list(given.tags),
        enabled_routes: list(given.enabled_routes),
        attributes: match given.posture_attributes {
            Some(api::AttributesOwnership::Exact) => AttributesOwnership::Exact,
            Some(api::AttributesOwnership::Named) | None => AttributesOwnership::Named,
        },
    }
}

/// A policy that observes owns nothing, suspended or not.
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

/// Collects all errors, so that an author can fix them at once.
#[derive(Default)]
struct SpecErrors(Vec<String>);

impl SpecErrors {
    fn add(&mut self, path: &str, error: impl Display) {
        self.0.push(format!("spec.{path}: {error}"));
    }

    fn one<T: FromStr<Err: Display>>(&mut self, path: &str, text: Option<&String>) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(path, error);
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
            let error =
                format!("'{text}' is not a valid time: write one such as 2027-01-01T00:00:00Z");
            self.add(path, error);
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
                Target::Selector(self.selector(selector))
            }
            _ => {
                self.add("device", "write exactly one of device and deviceSelector");
                Target::Selector(Selector::default())
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

    fn desired(&mut self, spec: &TailscaleDevicePolicySpec) -> DesiredSettings {
        let all_tags = ownership(spec).tags == ListOwnership::Exact;
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
        let (expire_key_at, delete_inactive) = self.actions(spec);
        DesiredSettings {
            authorized: spec.authorized,
            tags: spec.tags.as_ref().map(|tags| self.set("tags", tags)),
            key_expiry_disabled: spec
                .key_expiry
                .map(|desired| desired == KeyExpiry::Disabled),
            enabled_routes: spec
                .enabled_routes
                .as_ref()
                .map(|routes| self.set("enabledRoutes", routes)),
            exit_node: spec.exit_node,
            attributes: spec
                .posture_attributes
                .as_ref()
                .map(|desired| self.attributes(desired)),
            name: self.one("name", spec.name.as_ref()),
            ipv4: self.one("ipv4", spec.ipv4.as_ref()),
            expire_key_at,
            delete_inactive,
            unreadable: BTreeSet::new(),
        }
    }

    fn actions(
        &mut self,
        spec: &TailscaleDevicePolicySpec,
    ) -> (Option<Timestamp>, Option<DeleteInactive>) {
        let at = self.time("expireKeyAt", spec.expire_key_at.as_ref());
        if at.is_some() && spec.key_expiry == Some(KeyExpiry::Disabled) {
            self.add(
                "expireKeyAt",
                "a key whose expiry is disabled goes on working when it is expired: write keyExpiry: \
                 Enabled, or leave one of the two out",
            );
        }
        let Some(delete_inactive) = &spec.delete_inactive else {
            return (at, None);
        };
        if spec.device_selector.is_none() {
            self.add(
                "deleteInactive",
                "write deviceSelector instead of device, or leave deleteInactive out",
            );
        }
        let inactive_for =
            self.value_of("deleteInactive.inactiveFor", delete_inactive.inactive_for());
        let inactive_for = inactive_for.and_then(|length| SignedDuration::try_from(length).ok());
        let max_per_day = self.value_of("deleteInactive.maxPerDay", delete_inactive.max_per_day());
        let delete_inactive = inactive_for.zip(max_per_day);
        let delete_inactive = delete_inactive.map(|(inactive_for, max_per_day)| DeleteInactive {
            inactive_for,
            max_per_day,
        });
        (at, delete_inactive)
    }

    fn value_of<T>(&mut self, path: &str, value: Result<T, Refused>) -> Option<T> {
        value.map_err(|refused| self.add(path, refused)).ok()
    }

    fn attributes(
        &mut self,
        desired: &BTreeMap<String, PostureAttribute>,
    ) -> BTreeMap<AttributeKey, DesiredAttribute> {
        let mut parsed: BTreeMap<AttributeKey, DesiredAttribute> = BTreeMap::new();
        for (name, desired) in desired {
            let path = format!("postureAttributes[{name}]");
            let key: Option<AttributeKey> = self.one(&path, Some(name));
            let value = self.value(&path, desired);
            let expiry = self.time(&format!("{path}.expiry"), desired.expiry.as_ref());
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            if let Some(other) = parsed.keys().find(|other| other.folded() == key.folded()) {
                let error = format!("differs from {other} only in case: keep one of the two");
                self.add(&path, error);
            }
            parsed.insert(key, DesiredAttribute { value, expiry });
        }
        parsed
    }

    fn value(&mut self, path: &str, desired: &PostureAttribute) -> Option<AttributeValue> {
        match (&desired.string, desired.integer, desired.boolean) {
            (Some(text), None, None) => self
                .one::<AttributeString>(&format!("{path}.string"), Some(text))
                .map(AttributeValue::String),
            (None, Some(number), None) => match SafeInteger::try_from(number) {
                Ok(number) => Some(AttributeValue::Integer(number)),
                Err(error) => {
                    self.add(&format!("{path}.integer"), error);
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
