//! One policy through a random history, compared with an exact account of its managed keys.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::cases::owned::{MONTH, human},
    History, World,
    builders::{attributes, blank, hostname, key, policy_key, tag, with_tag},
    model::{device, node_id},
};
use crate::{
    model::SettingValue,
    model::{Device, NodeId},
    plan::{DesiredSettings, Mode, Policy, Target},
};

/// The managed keys of one policy and the exact account of them.
struct Account {
    managed: BTreeSet<(NodeId, String)>,
}

pub const HISTORY: History = History {
    name: "owned_keys",
    run: run_history,
    share: Duration::from_secs(8),
};

/// Random edits, joins, leaves, and values set by people, each after the previous one has settled.
#[test]
fn a_random_history_deletes_what_was_managed_and_nothing_else() {
    HISTORY.run_share();
}

fn run_history(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for number in 0..6 {
        let mut device = device(number);
        device.tags = [tag(["tag:s", "tag:t"][number % 2])].into();
        device.created = Some(MONTH.parse().unwrap());
        world.model.add(device);
    }
    if world.rng.one_in(2) {
        world.record_digests();
    }
    world.start();
    let mut account = Account {
        managed: BTreeSet::new(),
    };
    let mut current: Option<Policy> = None;
    for _ in 0..12 {
        if !world.rng.begin_step() {
            continue;
        }
        let down = world.rng.bool();
        if down {
            world.life += 1;
        }
        // People change devices, their attributes and the manifest.
        for _ in 0..world.rng.usize(..4) {
            let number = world.rng.usize(..6);
            if world.rng.bool() {
                let name = ["x", "y"][world.rng.usize(..2)];
                human(&mut world, number, name);
            } else {
                let to = tag(["tag:s", "tag:t"][world.rng.usize(..2)]);
                world.model.devices.get_mut(&node_id(number)).unwrap().tags = [to].into();
            }
        }
        // A running process first observes these changes.
        if let Some(policy) = current.filter(|_| !down) {
            account.settle(&mut world, &policy);
        }
        let policy = some_policy(&mut world);
        world.apply(policy.clone());
        if down {
            world.kill();
        }
        account.settle(&mut world, &policy);
        current = Some(policy);
    }
    world.steps
}

fn some_policy(world: &mut World) -> Policy {
    let target = match world.rng.u8(..3) {
        0 => hostname(&format!("host-{}", world.rng.u8(..6))),
        1 => with_tag("tag:s"),
        _ => with_tag("tag:t"),
    };
    let keys = [("x", "gold"), ("y", "gold")];
    let named: Vec<_> = keys.into_iter().filter(|_| world.rng.bool()).collect();
    let modes = [Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Observe];
    Policy {
        target,
        desired: if world.rng.u8(..5) == 0 {
            DesiredSettings {
                settings: [SettingValue::KeyExpiryDisabled(true)].into(),
                ..DesiredSettings::default()
            }
        } else {
            attributes(&named)
        },
        mode: modes[world.rng.usize(..4)],
        ..blank(policy_key(0))
    }
}

impl Account {
    /// Runs until the world settles, then compares it with the account.
    fn settle(&mut self, world: &mut World, policy: &Policy) {
        let before = world.model.attributes.clone();
        world.run_for(Duration::from_mins(25));
        let fits = |device: &Device| match &policy.target {
            Target::Selector(selector) => selector.matches(device),
            Target::Device(target) => {
                target.identity.to_string() == format!("hostname {}", device.hostname)
            }
        };
        for (id, device) in &world.model.devices {
            for name in ["x", "y"] {
                let fact = (id.clone(), name.to_owned());
                let now = world.model.attributes[id].contains_key(&key(name));
                let then = before[id].contains_key(&key(name));
                let named = policy.desired.attributes.as_ref();
                let is_named = named.is_some_and(|named| named.contains_key(&key(name)));
                let actions = policy.mode == Mode::Enforce && fits(device);
                let expected = match (actions, is_named) {
                    (true, true) => true,
                    (true, false) if named.is_some() && self.managed.contains(&fact) => false,
                    _ => then,
                };
                assert_eq!(now, expected, "{name} of {id}: {policy:?}");
                if actions && is_named {
                    self.managed.insert(fact);
                } else if !fits(device) || named.is_none() || (actions && !is_named) {
                    self.managed.remove(&fact);
                }
            }
        }
    }
}
