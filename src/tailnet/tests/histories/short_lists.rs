//! Lists that lack random devices, compared with an exact account: a missing entry alone causes no change.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    History, World,
    builders::{attributes, blank, hostname, key, policy, policy_key, tag, tags, with_tag},
    choices::Choices,
    model::{Faults, device, node_id},
};
use crate::{
    model::{Device, NodeId},
    plan::{Deletion, ListOwnership, Mode, Ownership, Policy, PolicyKey},
    tailnet::{HeldPlan, Input, PolicyReport, Request, State},
};

pub const HISTORY: History = History {
    name: "short_lists",
    run: run_history,
    share: Duration::from_secs(14),
};

/// After this time without a change, a list has shown the true state.
const SETTLED: Duration = Duration::from_mins(6);
/// A device that lists lacked before it left, and that a lookup has found, is looked up again as rarely as
/// attributes are read.
const LOOKED_UP_AGAIN: Duration = Duration::from_mins(10);
/// Policies for a hostname: one with two devices from the start, one whose second device joins later. And
/// the fleets: one under `Clear`, one that requires approval, one that enforces.
const NAMED_TWICE: usize = 0;
const JOINED: usize = 1;
const CLEARING: usize = 2;
const ASKING: usize = 3;
const CHANGING: usize = 4;

/// The true state, and since when it is true.
struct Account {
    /// When a device joined, left, or was changed by a person, or a policy was edited or approved.
    changed: Duration,
    /// When the engine started again: it compares its first two lists.
    begun: Duration,
    /// How many reports have been checked.
    checked: usize,
    /// The last binding of each policy.
    bound: BTreeMap<PolicyKey, NodeId>,
    /// The plan that is pending approval, if it was frozen after a long time without a change.
    frozen: Option<HeldPlan>,
    /// The devices that have or had the attribute of the clearing policy.
    holding: BTreeSet<NodeId>,
}

fn clearing(selects: &str) -> Policy {
    Policy {
        target: with_tag(selects),
        desired: attributes(&[("c", "gold")]),
        deletion: Deletion::Clear,
        ..blank(policy_key(CLEARING))
    }
}

fn begin(seed: u64) -> World {
    let mut world = World::new(seed);
    for number in 0..10 {
        let mut device = device(number);
        let tags = ["tag:u", "tag:s", "tag:t"][number % 3];
        device.tags = [tag(tags)].into();
        world.model.add(device);
    }
    world.model.add(twin_of(0));
    let at_least = Ownership {
        tags: ListOwnership::AtLeast,
        ..Ownership::default()
    };
    world.apply(policy(NAMED_TWICE, attributes(&[("n", "gold")])));
    world.apply(Policy {
        target: hostname("host-3"),
        ..policy(JOINED, attributes(&[("n", "gold")]))
    });
    world.apply(clearing("tag:s"));
    world.apply(Policy {
        target: with_tag("tag:s"),
        mode: Mode::Approve,
        ownership: at_least,
        ..policy(ASKING, tags(&["tag:a"]))
    });
    world.apply(Policy {
        target: with_tag("tag:t"),
        ownership: at_least,
        ..policy(CHANGING, tags(&["tag:b"]))
    });
    world.start();
    // Nothing could tell two short lists from complete ones if none had ever had both devices of a name.
    while world.policies[&policy_key(NAMED_TWICE)]
        .record
        .rivals
        .is_none()
    {
        world.run_for(Duration::from_secs(1));
    }
    world
}

/// Another device of the same hostname and owner.
fn twin_of(number: usize) -> Device {
    Device {
        node_id: node_id(20 + number),
        hostname: format!("host-{number}"),
        tags: [tag("tag:u")].into(),
        ..device(20 + number)
    }
}

impl World {
    fn matching(&self, selects: &str) -> BTreeSet<NodeId> {
        let devices = self.model.devices.values();
        let matching = devices.filter(|device| device.tags.contains(&tag(selects)));
        matching.map(|device| device.node_id.clone()).collect()
    }

    /// The next lists lack one device or half of them: one list, one and a later one, or several.
    fn shorten_plausibly(&mut self) {
        let ids: Vec<NodeId> = self.model.devices.keys().cloned().collect();
        let some = |rng: &mut Choices| -> BTreeSet<NodeId> {
            let (first, half) = (rng.usize(..ids.len()), ids.len() / 2);
            match rng.u8(..4) {
                0 => ids[..half].iter().cloned().collect(),
                1 => ids[half..].iter().cloned().collect(),
                2 => ids.iter().skip(first).take(3).cloned().collect(),
                _ => BTreeSet::from([ids[first].clone()]),
            }
        };
        let lacking = some(&mut self.rng);
        let complete = BTreeSet::new();
        let lists = match self.rng.u8(..5) {
            0 | 1 => vec![lacking],
            2 => vec![lacking.clone(), complete, lacking],
            3 => vec![lacking; self.rng.usize(2..7)],
            _ => vec![lacking, some(&mut self.rng)],
        };
        self.model.short.extend(lists);
    }

    /// The first lists are short, often without one of the two devices of a name.
    fn shorten_first_lists(&mut self) {
        self.model.short.clear();
        if self.rng.bool() {
            self.shorten_plausibly();
            if self.rng.bool() {
                let of_two = [0, 20][self.rng.usize(..2)];
                let lists = self.rng.usize(1..4);
                self.model.short = vec![BTreeSet::from([node_id(of_two)]); lists].into();
            }
        }
    }
}

impl Account {
    fn disturb(&mut self, world: &mut World) {
        match world.rng.u8(..16) {
            0..=6 => world.shorten_plausibly(),
            7 => {
                world.shorten_first_lists();
                self.begun = world.clock;
                match world.rng.u8(..3) {
                    0 => world.kill(),
                    1 => {
                        world.end_term();
                        world.start_term();
                    }
                    _ => world.step(Input::connection(Ok(()))),
                }
            }
            8 => world.model.broken = world.some_device(),
            9 => {
                world.faults.answer_lost = world.rng.f64() * 0.1;
                world.faults.list_delay = Duration::from_secs(world.rng.u64(..4));
            }
            10 => self.approve(world),
            11 | 12 => self.change_tags(world),
            13 => {
                self.changed = world.clock;
                world.model.add(twin_of(3));
            }
            14 => {
                self.changed = world.clock + LOOKED_UP_AGAIN;
                let gone = [node_id(3), node_id(23), node_id(9)];
                world.model.remove(&gone[world.rng.usize(..3)]);
            }
            _ => {
                self.changed = world.clock;
                let selects = ["tag:s", "tag:t"][world.rng.usize(..2)];
                world.apply(clearing(selects));
            }
        }
    }

    fn approve(&mut self, world: &mut World) {
        if let Some(plan) = self.frozen.take() {
            self.changed = world.clock;
            let annotation = format!("plan:{}", plan.hash);
            world.approve(&policy_key(ASKING), &annotation);
        }
    }

    fn change_tags(&mut self, world: &mut World) {
        self.changed = world.clock;
        let id = node_id(world.rng.usize(..10));
        let tags = ["tag:s", "tag:t", "tag:u"][world.rng.usize(..3)];
        if let Some(device) = world.model.devices.get_mut(&id) {
            device.tags = [tag(tags)].into();
            // No read can show what changes while a request is under way.
            world.drifted.insert(id, world.clock);
        }
    }

    /// Runs for some time and compares each report with the true state.
    fn run(&mut self, world: &mut World, seconds: u64) {
        for _ in 0..seconds {
            world.run_for(Duration::from_secs(1));
            let attributes = world.model.attributes.iter();
            let has = attributes.filter(|(_, values)| values.contains_key(&key("c")));
            self.holding.extend(has.map(|(id, _)| id.clone()));
            let new = world.seen.reports[self.checked..].to_vec();
            self.checked = world.seen.reports.len();
            for (key, report) in &new {
                self.check(world, key, report);
            }
            self.check_managed(world);
        }
    }

    fn check(&mut self, world: &World, key: &PolicyKey, report: &PolicyReport) {
        self.check_binding(world, key, report);
        let both_listed = world.clock > self.begun + Duration::from_secs(30);
        // A device that lists lack shows a change, or is gone, only once it is looked up again.
        let last_list = &world.reported.last_list;
        let known = world.reported.kept.keys();
        let mut all = world.model.devices.keys().chain(known);
        let lists_all = all.all(|id| last_list.contains(id));
        let lookup = if lists_all {
            Duration::ZERO
        } else {
            LOOKED_UP_AGAIN
        };
        if !both_listed || world.clock < self.changed + SETTLED + lookup {
            self.frozen = None;
            return;
        }
        let number = (0..5).find(|number| *key == policy_key(*number));
        let selects = match number {
            Some(ASKING) => "tag:s",
            Some(CHANGING) => "tag:t",
            _ => return,
        };
        let State::Selector(fleet) = &report.state else {
            return;
        };
        let matching = world.matching(selects);
        // Lists may lack a device since the start, one after the other: no process can know of it.
        if !matching.is_subset(&world.reported.seen) {
            self.frozen = None;
            return;
        }
        assert_eq!(fleet.matched, matching.len(), "{key}: {report:#?}");
        if number == Some(ASKING)
            && let Some(plan) = &report.held
        {
            let differs = |id: &&NodeId| !world.model.devices[*id].tags.contains(&tag("tag:a"));
            let differing = matching.iter().filter(differs).count();
            assert!(plan.open <= differing, "{plan:?}, and {differing} differ");
            let frozen = self.frozen.get_or_insert_with(|| plan.clone());
            assert_eq!(frozen, plan);
        }
    }

    /// A policy is bound to another device only if its device has really left, and never to one of two.
    fn check_binding(&mut self, world: &World, key: &PolicyKey, report: &PolicyReport) {
        let Some(bound) = &report.record.bound else {
            return;
        };
        assert_ne!(*key, policy_key(NAMED_TWICE), "bound to {bound:?}");
        let before = self.bound.insert(key.clone(), bound.node.clone());
        if let Some(before) = before.filter(|before| *before != bound.node) {
            let is_there = world.model.devices.contains_key(&before);
            assert!(!is_there, "{key} leaves {before} for {bound:?}");
        }
    }

    /// The clearing policy records every device that still has its attribute. Only the last report counts:
    /// an earlier one may lack a device that got the attribute since.
    fn check_managed(&self, world: &World) {
        let Some(report) = world.last_reports.get(&policy_key(CLEARING)) else {
            return;
        };
        let managed = &report.record.managed;
        for id in &self.holding {
            let attributes = world.model.attributes.get(id);
            let has = attributes.is_some_and(|it| it.contains_key(&key("c")));
            let known = managed.nodes.contains(id) || managed.released_devices().contains(id);
            assert!(known || !has, "{id} is forgotten: {managed:?}");
        }
    }
}

fn run_history(seed: u64) -> u64 {
    let mut world = begin(seed);
    let mut account = Account {
        changed: Duration::ZERO,
        begun: Duration::ZERO,
        checked: 0,
        bound: BTreeMap::new(),
        frozen: None,
        holding: BTreeSet::new(),
    };
    world.shorten_first_lists();
    for _ in 0..30 {
        if !world.rng.begin_step() {
            continue;
        }
        let pause = [20, 100, 500][world.rng.usize(..3)];
        let pause = world.rng.u64(..pause);
        account.run(&mut world, pause);
        account.disturb(&mut world);
    }
    world.rng.begin_step();
    world.faults = Faults {
        delay: Duration::from_millis(100),
        ..Faults::default()
    };
    world.model.broken = None;
    world.model.short.clear();
    account.run(&mut world, 2_000);
    // Someone may have changed the tags of one device again and again, so that they are contested for an hour.
    world.run_for(Duration::from_hours(2));
    let has_c = world.model.attributes.iter();
    let has_c = has_c.filter(|(_, values)| values.contains_key(&key("c")));
    let selected = world.policies[&policy_key(CLEARING)].policy.target.clone();
    for (id, _) in has_c {
        let kept = selected == with_tag("tag:s");
        let tag = tag(if kept { "tag:s" } else { "tag:t" });
        assert!(world.model.devices[id].tags.contains(&tag), "{id} has c");
    }
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_mins(30));
    assert!(world.writes().is_empty() && world.seen.reports.is_empty());
    let lookups = world.count(|request| matches!(request, Request::Device(_)));
    assert_eq!(lookups, 0);
    world.steps
}

#[test]
fn random_short_lists_lead_to_no_wrong_decision() {
    HISTORY.run_share();
}
