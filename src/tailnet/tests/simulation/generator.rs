//! Random devices and policies.

use std::collections::BTreeMap;

use super::{
    World,
    builders::{blank, policy_key, string},
    chaos::{DEVICES, POLICIES},
    model,
};
use crate::{
    model::{
        AttributeKey, AttributeValue, DesiredAttribute, Device, RouteSet, Setting, SettingValue,
        Tag, TagSet,
    },
    plan::{
        AttributesOwnership, DesiredSettings, DeviceTarget, Disruption, Glob, Identity,
        ListOwnership, Mode, Ownership, Policy, PolicyKey, Selector, Suspender, Target,
    },
};

impl World {
    pub fn device(&mut self, number: usize) -> Device {
        let mut device = model::device(number);
        if self.rng.bool() {
            device.tags = self.tags();
        }
        device.authorized = self.rng.u8(..4) > 0;
        device.key_expiry_disabled = self.rng.bool();
        let in_a_while = self.wall() + jiff::SignedDuration::from_secs(self.rng.i64(-500..1500));
        device.expires = self.rng.bool().then_some(in_a_while);
        device.enabled_routes = Some(self.routes());
        device.user = ["amelie@example.com", "bert@example.com"][self.rng.usize(..2)].to_owned();
        device.external = self.rng.one_in(20);
        device
    }

    pub fn policy(&mut self) -> Policy {
        let number = self.rng.usize(..DEVICES);
        let identity = match self.rng.u8(..4) {
            0 => Identity::NodeId(model::node_id(number)),
            1 => Identity::LegacyId((1000 + number).to_string()),
            2 => Identity::Name(format!("name-{number}")),
            _ => Identity::Hostname(format!("host-{number}")),
        };
        let key = policy_key(self.rng.usize(..POLICIES));
        if self.rng.one_in(3) {
            return self.fleet_policy(key);
        }
        let tags = if self.rng.one_in(6) {
            self.tags()
        } else {
            TagSet::new()
        };
        let desired = self.desired();
        let allowed = [Disruption::Deauthorize, Disruption::ExpiredKey];
        let allowed = allowed.into_iter().filter(|_| self.rng.bool()).collect();
        let users = Vec::new();
        Policy {
            target: Target::Device(DeviceTarget {
                identity,
                tags,
                users,
            }),
            desired,
            allowed,
            ..blank(key)
        }
    }

    pub fn fleet_policy(&mut self, key: PolicyKey) -> Policy {
        let mut selector = Selector::default();
        if self.rng.bool() {
            selector.tags.insert(self.tag());
        }
        if self.rng.one_in(4) {
            selector.users = vec![Glob::new(["a*", "*@example.com"][self.rng.usize(..2)])];
        }
        if self.rng.one_in(3) {
            selector.hostnames = vec![Glob::of_folded(
                ["HOST-?", "*-[0]", "*1*"][self.rng.usize(..3)],
            )];
        }
        if self.rng.one_in(4) {
            let expressions = [
                "!('tag:a' in device.tags)",
                "size(device.tags) > 1 || device.hostname == 'host-1'",
                "device.lastSeen < '2026' || 'tag:b' in device.tags",
            ];
            let text = expressions[self.rng.usize(..3)];
            selector.expression = Some(text.parse().unwrap());
        }
        let mut desired = self.desired();
        // One value cannot fit several devices.
        desired.settings.unset(Setting::Name);
        desired.settings.unset(Setting::Ipv4);
        let allowed = [
            Disruption::Deauthorize,
            Disruption::ExpiredKey,
            Disruption::FirstTag,
        ];
        let allowed = allowed.into_iter().filter(|_| self.rng.bool()).collect();
        Policy {
            target: Target::Selector(selector),
            desired,
            allowed,
            ownership: self.ownership(),
            mode: [
                Mode::Enforce,
                Mode::Enforce,
                Mode::Enforce,
                Mode::Approve,
                Mode::Suspended(Suspender::Policy),
                Mode::Observe,
            ][self.rng.usize(..6)],
            priority: self.rng.i32(-1..2),
            ..blank(key)
        }
    }

    pub fn ownership(&mut self) -> Ownership {
        let mut extent = || {
            if self.rng.bool() {
                ListOwnership::Exact
            } else {
                ListOwnership::AtLeast
            }
        };
        let (tags, enabled_routes) = (extent(), extent());
        let attributes = if self.rng.one_in(4) {
            AttributesOwnership::Exact
        } else {
            AttributesOwnership::Named
        };
        Ownership {
            tags,
            enabled_routes,
            attributes,
        }
    }

    pub fn desired(&mut self) -> DesiredSettings {
        let mut desired = DesiredSettings::default();
        if self.rng.one_in(3) {
            desired
                .settings
                .set(SettingValue::Authorized(self.rng.bool()));
        }
        if self.rng.one_in(3) {
            desired.tags = Some(self.tags());
        }
        if self.rng.one_in(3) {
            desired
                .settings
                .set(SettingValue::KeyExpiryDisabled(self.rng.bool()));
        }
        if self.rng.one_in(3) {
            desired.enabled_routes = Some(self.routes());
        }
        if self.rng.one_in(3) {
            desired.exit_node = Some(self.rng.bool());
        }
        if self.rng.one_in(2) {
            let count = self.rng.usize(..3);
            let named = (0..count).map(|_| (self.attribute_key(), self.attribute()));
            // The API server refuses a manifest with two keys that differ only in case.
            let apart: BTreeMap<_, _> = named.map(|named| (named.0.folded(), named)).collect();
            desired.attributes = Some(apart.into_values().collect());
        }
        if self.rng.one_in(6) {
            desired.settings.set(SettingValue::Name(
                format!("desired-{}", self.rng.u8(..4)).parse().unwrap(),
            ));
        }
        if self.rng.one_in(6) {
            desired.settings.set(SettingValue::Ipv4(
                format!("100.80.1.{}", self.rng.u8(..4)).parse().unwrap(),
            ));
        }
        desired
    }

    pub fn tag(&mut self) -> Tag {
        format!("tag:{}", self.rng.char('a'..='c')).parse().unwrap()
    }

    pub fn tags(&mut self) -> TagSet {
        let count = self.rng.usize(1..3);
        (0..count).map(|_| self.tag()).collect()
    }

    pub fn routes(&mut self) -> RouteSet {
        let count = self.rng.usize(..3);
        let route = |number: u8| format!("10.{number}.0.0/16").parse().unwrap();
        (0..count).map(|_| route(self.rng.u8(..3))).collect()
    }

    pub fn attribute_key(&mut self) -> AttributeKey {
        // Two of the keys differ only in case.
        let keys = ["custom:k0", "custom:k1", "custom:k2", "custom:K2"];
        keys[self.rng.usize(..4)].parse().unwrap()
    }

    pub fn attribute(&mut self) -> DesiredAttribute {
        let soon = self.wall() + jiff::SignedDuration::from_secs(self.rng.i64(1..600));
        DesiredAttribute {
            value: match self.rng.u8(..6) {
                0 => AttributeValue::Integer(3.try_into().unwrap()),
                even if even % 2 == 0 => string("gold"),
                _ => string("silver"),
            },
            expiry: (self.rng.one_in(4)).then_some(soon),
        }
    }
}
