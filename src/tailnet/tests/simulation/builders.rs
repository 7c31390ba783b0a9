//! What the tests are written with: worlds, devices, policies, and their values.

use std::time::Duration;

use super::{World, model::device};
use crate::{
    model::{AttributeKey, AttributeValue, DesiredAttribute, Tag, TagSet},
    plan::{
        AllowedRules, Deletion, DesiredSettings, DeviceTarget, Identity, Mode, Ownership, Policy,
        PolicyKey, Selector, Target,
    },
};

pub const SOON: Duration = Duration::from_secs(40);

/// A world with `devices` devices and no policy.
pub fn world(devices: usize) -> World {
    let mut world = World::new(1);
    for number in 0..devices {
        world.model.add(device(number));
    }
    world
}

/// `count` servers: devices with `tag:s`.
pub fn servers(count: usize) -> World {
    let mut world = world(count);
    for device in world.model.devices.values_mut() {
        device.tags = [tag("tag:s")].into();
    }
    world
}

pub fn policy_key(number: usize) -> PolicyKey {
    PolicyKey::new("network", format!("policy-{number}"))
}

/// A policy that targets nothing and declares nothing.
pub fn blank(key: PolicyKey) -> Policy {
    Policy {
        key,
        uid: String::new(),
        generation: 1,
        priority: 0,
        created: jiff::Timestamp::UNIX_EPOCH,
        target: hostname(""),
        desired: DesiredSettings::default(),
        ownership: Ownership::default(),
        mode: Mode::default(),
        allowed: std::collections::BTreeSet::new(),
        deletion: Deletion::default(),
        allowance: AllowedRules::default(),
    }
}

pub fn policy(number: usize, desired: DesiredSettings) -> Policy {
    let mut policy = blank(policy_key(number));
    policy.target = hostname(&format!("host-{number}"));
    policy.desired = desired;
    policy
}

/// Policy 0, for all devices with `tag:s`.
pub fn fleet(desired: DesiredSettings) -> Policy {
    let selector = Selector {
        tags: [tag("tag:s")].into(),
        ..Selector::default()
    };
    Policy {
        target: Target::Selector(selector),
        desired,
        ..blank(policy_key(0))
    }
}

pub fn clearing(desired: DesiredSettings) -> Policy {
    Policy {
        deletion: Deletion::Clear,
        ..fleet(desired)
    }
}

pub fn with_approval(policy: Policy) -> Policy {
    Policy {
        mode: Mode::Approve,
        ..policy
    }
}

/// The target of a policy that names a device by its hostname.
pub fn hostname(name: &str) -> Target {
    Target::Device(DeviceTarget {
        identity: Identity::Hostname(name.to_owned()),
        tags: TagSet::new(),
        users: Vec::new(),
    })
}

pub fn with_tag(name: &str) -> Target {
    Target::Selector(Selector {
        tags: [tag(name)].into(),
        ..Selector::default()
    })
}

pub fn tag(tag: &str) -> Tag {
    tag.parse().unwrap()
}

pub fn tags(tags: &[&str]) -> DesiredSettings {
    DesiredSettings {
        tags: Some(tags.iter().map(|tag| tag.parse().unwrap()).collect()),
        ..DesiredSettings::default()
    }
}

pub fn key(name: &str) -> AttributeKey {
    format!("custom:{name}").parse().unwrap()
}

pub fn string(text: &str) -> AttributeValue {
    AttributeValue::String(text.parse().unwrap())
}

pub fn attributes(named: &[(&str, &str)]) -> DesiredSettings {
    let desired = |text: &str| DesiredAttribute {
        value: string(text),
        expiry: None,
    };
    let named = named.iter().map(|(name, text)| (key(name), desired(text)));
    DesiredSettings {
        attributes: Some(named.collect()),
        ..DesiredSettings::default()
    }
}
