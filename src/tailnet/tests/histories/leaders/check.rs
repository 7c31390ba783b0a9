//! The rule for every request: a policy that the sender has seen desires it, and so does a policy that was
//! stored in this term. It never removes a value that a person set and no policy owns.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{account::Account, process::Process, store::Object};
use crate::{
    model::{AttributeKey, NodeId, RouteSet, SettingValue, TagSet},
    plan::{AttributeWrites, Call, ListOwnership, Mode, Policy, PolicyKey},
    tailnet::tests::simulation::model::Model,
};

/// The greatest age of a leader's state within its term: it may be cut off until its lease ends, and its
/// watches may be in backoff after that.
const LAG: Duration = Duration::from_mins(1);
/// The greatest age of the last list or read of a device.
pub const SEEN_WITHIN: Duration = Duration::from_mins(2);
/// The greatest age of the read behind a list that carries unmanaged entries, plus the time of such a
/// request in flight.
pub const READ_WITHIN: Duration = Duration::from_secs(15);

/// A request that is about to be sent.
pub struct Sending<'a> {
    call: &'a Call,
    account: &'a Account,
    model: &'a Model,
    shown: &'a BTreeMap<PolicyKey, Object>,
    now: Duration,
    /// Objects that were replaced before this time do not count.
    since: Duration,
    /// States of a device before this time do not count.
    seen: Duration,
}

impl<'a> Sending<'a> {
    pub fn new(
        call: &'a Call,
        account: &'a Account,
        model: &'a Model,
        sender: &'a Process,
        now: Duration,
    ) -> Self {
        Self {
            call,
            account,
            model,
            shown: &sender.shown,
            now,
            since: now.saturating_sub(LAG).max(sender.won_at),
            seen: now.saturating_sub(SEEN_WITHIN),
        }
    }

    /// The stored objects desire the request and none forbids it.
    pub fn check(&self, wall: Timestamp, suspended: bool) {
        let call = self.call;
        let suspended = suspended || self.account.was_suspended(self.since);
        assert!(!suspended, "{call:?} in a tailnet that is suspended");
        match call {
            Call::Set(id, SettingValue::KeyExpiryDisabled(value)) => {
                self.check_desired(id, |policy| {
                    policy.desired.key_expiry_disabled() == Some(*value)
                });
            }
            Call::SetTags(id, tags) => self.check_tags(id, tags),
            Call::SetRoutes(id, routes) => self.check_routes(id, routes),
            Call::ExpireKey(_) => {
                let mut times = self.account.times.iter();
                assert!(times.any(|time| *time <= wall), "{call:?} too early");
            }
            Call::Delete(id) => {
                self.check_desired(id, |policy| policy.desired.delete_inactive.is_some());
            }
            Call::WriteAttributes(nodes) => {
                for (id, writes) in nodes {
                    self.check_attributes(id, writes);
                }
            }
            Call::Set(..) => {}
        }
    }

    fn shown(&self) -> impl Iterator<Item = &Policy> {
        let acting = self.shown.values().filter(|object| !object.deleting);
        let policies = acting.map(|object| &object.policy);
        policies.filter(|policy| matches!(policy.mode, Mode::Enforce | Mode::Approve))
    }

    /// A policy that the sender has seen desires it, and so does one that was stored since it became
    /// leader.
    fn check_desired(&self, id: &NodeId, desires: impl Fn(&Policy) -> bool) {
        let (call, account) = (self.call, self.account);
        let desires =
            |policy: &Policy| desires(policy) && account.may_target(policy, id, self.seen);
        let specs = account.specs();
        let mut specs = specs.filter(|spec| spec.may_send() && spec.span.held_since(self.since));
        let stored = specs.any(|spec| desires(&spec.policy));
        assert!(
            stored,
            "{call:?} is desired by nothing stored since {:?}",
            self.since
        );
        let shown = self.shown().any(desires);
        assert!(shown, "{call:?} is desired by nothing that its sender sees");
    }

    fn check_tags(&self, id: &NodeId, tags: &TagSet) {
        if self.account.has_drifted(id, self.now) {
            return;
        }
        let (call, before) = (self.call, &self.model.devices[id].tags);
        assert!(
            before.is_subset(tags),
            "{call:?} takes tags away: {before:?}"
        );
        for tag in tags.difference(before) {
            self.check_desired(id, |policy| {
                let desired = policy.desired.tags.as_ref();
                desired.is_some_and(|desired| desired.contains(tag))
            });
        }
    }

    fn check_routes(&self, id: &NodeId, routes: &RouteSet) {
        if self.account.has_drifted(id, self.now) {
            return;
        }
        let device = &self.model.devices[id];
        let before = device.enabled_routes.clone().unwrap_or_default();
        let takes = before.difference(routes).next().is_some();
        self.check_desired(id, |policy| {
            let Some(desired) = &policy.desired.enabled_routes else {
                return false;
            };
            let mut added = routes.difference(&before);
            let replaces = policy.ownership.enabled_routes == ListOwnership::Exact;
            added.all(|route| desired.contains(route)) && (replaces || !takes)
        });
    }

    fn check_attributes(&self, id: &NodeId, writes: &AttributeWrites) {
        for (key, desired) in writes {
            let Some(desired) = desired else {
                self.check_deletion(id, key);
                continue;
            };
            self.check_desired(id, |policy| {
                let attributes = policy.desired.attributes.as_ref();
                attributes.is_some_and(|attributes| attributes.get(key) == Some(desired))
            });
        }
    }

    /// A deleted key was declared once, is declared no longer, and was not set by a person.
    fn check_deletion(&self, id: &NodeId, key: &AttributeKey) {
        let account = self.account;
        let specs = || account.specs().filter(|spec| spec.declares(key));
        assert!(specs().next().is_some(), "{key} of {id} was never declared");
        let since = self.since.min(self.now.saturating_sub(LAG));
        let declared = specs().find(|spec| {
            spec.span.holds_since(since) && account.targets(&spec.policy, id, self.seen)
        });
        assert!(declared.is_none(), "{key} of {id} is deleted: {declared:?}");
        let mut shown = self.shown();
        let shown = shown.find(|policy| {
            let attributes = policy.desired.attributes.as_ref();
            attributes.is_some_and(|attributes| attributes.contains_key(key))
                && account.targets(policy, id, self.seen)
        });
        assert!(shown.is_none(), "{key} of {id} is deleted: {shown:?}");
        let Some(set) = account.set_by_person(id, key) else {
            return;
        };
        let before = set.saturating_sub(LAG);
        let targeted = before.saturating_sub(SEEN_WITHIN);
        let mut since_then = specs().filter(|spec| spec.span.held_since(before));
        let is_owned = since_then.any(|spec| account.may_target(&spec.policy, id, targeted));
        // Set a moment ago: the read before the deletion did not show it.
        assert!(
            is_owned || self.now < set + READ_WITHIN,
            "{key} of {id} is a person's, since {set:?}"
        );
    }
}
