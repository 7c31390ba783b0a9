//! An engine that applies an approved plan: no other change, and with an end.

use std::sync::Arc;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    EngineInputs, Kept, World,
    builders::{SOON, attributes, fleet, key, policy_key, servers, tags},
    model::node_id,
};
use crate::{
    model::{AttributeKey, Attributes, Device, ListSetting, NodeId, Reason, RouteSet, Setting},
    plan::{self, Changes, DeviceIndex, Difference, Field, Hold, PolicyInput, StatusState},
    tailnet::{ApprovedPlan, Engine, RemainingChange},
};

/// Long enough for three tries of every change.
const AT_MOST: Duration = Duration::from_mins(30);

impl World {
    /// Approves a share of the current differences and starts an engine for them.
    fn start_once(&mut self, share: f64) -> Changes {
        let mut changes = Changes::default();
        for difference in self.differences() {
            if self.rng.f64() < share {
                changes.insert(difference.node, difference.change);
            }
        }
        let approved = ApprovedPlan {
            changes: changes.clone(),
            ..ApprovedPlan::default()
        };
        self.life += 1;
        self.reported = EngineInputs::default();
        self.wake = None;
        self.engine = Engine::for_approved_plan(self.settings.clone(), self.rng.seed(), approved);
        self.start();
        changes
    }

    /// The differences that a plan would show as not held.
    fn differences(&self) -> Vec<Difference> {
        let policies: Vec<PolicyInput> = self.policies.values().map(declared).collect();
        let fleet = DeviceIndex::new(self.model.devices.values().cloned());
        let guards = self.guards();
        let plan = |attributes: &BTreeMap<NodeId, Attributes>| {
            plan::plan_tailnet(&policies, &guards, &fleet, attributes, self.wall()).devices
        };
        // As the command does, it reads the attributes that a plan needs.
        let unread = plan(&BTreeMap::new());
        let needs = |id: &NodeId| unread.get(id).is_some_and(|it| it.owners.need_attributes());
        let read = self.model.attributes.iter().filter(|(id, _)| needs(id));
        let read = read.map(|(id, attributes)| (id.clone(), attributes.clone()));
        let plans = plan(&read.collect()).into_values();
        let differences = plans.flat_map(|plan| plan.differences);
        differences.filter(|it| it.hold.is_none()).collect()
    }

    fn run_to_the_end(&mut self) {
        let end = self.clock + AT_MOST;
        while !self.engine.is_finished() {
            assert!(self.clock < end, "it does not end");
            self.run_for(Duration::from_secs(1));
        }
    }
}

fn declared(kept: &Kept) -> PolicyInput {
    PolicyInput {
        key: kept.policy.key.clone(),
        uid: kept.policy.uid.clone(),
        generation: kept.policy.generation,
        policy: Ok(Arc::new(kept.policy.clone())),
        record: kept.record.clone(),
        request: kept.request.clone(),
        approvals: kept.approvals.clone(),
        status_state: StatusState::default(),
        deleting: None,
    }
}

/// The settings that changed between two states of a device.
fn touched(before: (&Device, &Attributes), after: (&Device, &Attributes)) -> BTreeSet<Field> {
    let routes = |device: &Device| -> (RouteSet, RouteSet) {
        let enabled = device.enabled_routes.clone().unwrap_or_default();
        enabled.iter().partition(|route| route.is_exit_node())
    };
    let ((a, a_attributes), (b, b_attributes)) = (before, after);
    let ((a_exit, a_subnets), (b_exit, b_subnets)) = (routes(a), routes(b));
    let settings = [
        (
            Field::Setting(Setting::Authorized),
            a.authorized != b.authorized,
        ),
        (Field::List(ListSetting::Tags), a.tags != b.tags),
        (
            Field::Setting(Setting::KeyExpiry),
            a.key_expiry_disabled != b.key_expiry_disabled,
        ),
        (
            Field::List(ListSetting::EnabledRoutes),
            a_subnets != b_subnets,
        ),
        (Field::List(ListSetting::ExitNode), a_exit != b_exit),
        (Field::Setting(Setting::Name), a.label() != b.label()),
        (Field::Setting(Setting::Ipv4), a.ipv4 != b.ipv4),
    ];
    let settings = settings.into_iter().filter(|(_, other)| *other);
    let keys: BTreeSet<_> = a_attributes.keys().chain(b_attributes.keys()).collect();
    let keys = keys.into_iter();
    let keys = keys.filter(|key| a_attributes.get(*key) != b_attributes.get(*key));
    // Its expiry may have passed.
    let ends = |key: &&AttributeKey| a_attributes.get(*key).is_some_and(|it| it.expiry.is_some());
    let keys = keys.filter(|key| !ends(key) || b_attributes.contains_key(*key));
    let keys = keys.map(|key| Field::Attribute(key.clone()));
    settings.map(|(field, _)| field).chain(keys).collect()
}

fn carry_out_some(seed: u64) {
    let mut world = World::new(seed);
    world.populate();
    for _ in 0..world.rng.usize(5..30) {
        world.disturb_policies();
    }
    // Tags change other settings by themselves. No plan has that, so it is off.
    world.model.tags_disable_expiry = false;
    if world.rng.bool() {
        world.new_faults();
    }
    if world.rng.bool() {
        world.model.broken = Some(node_id(world.rng.usize(..5)));
    }
    let share = world.rng.f64() * 1.5;
    let none = Attributes::default();
    let before = (world.model.devices.clone(), world.model.attributes.clone());
    let approved = world.start_once(share);
    world.run_to_the_end();
    let of = |attributes: &BTreeMap<NodeId, Attributes>, id: &NodeId| {
        attributes.get(id).unwrap_or(&none).clone()
    };
    for (id, device) in &before.0 {
        let now = (&world.model.devices[id], &of(&world.model.attributes, id));
        let touched = touched((device, &of(&before.1, id)), now);
        let fields = approved.of(id).into_iter().flatten();
        let fields: BTreeSet<Field> = fields.map(|(field, _)| field.clone()).collect();
        assert!(
            touched.is_subset(&fields),
            "{id}: {touched:?} of {fields:?}"
        );
    }
    // Each approved change that was not made is reported.
    for undone in world.engine.remaining() {
        let difference = undone.difference;
        let reported = difference.hold.is_some() || undone.failure.is_some();
        let waits = difference.change.field() == Field::Setting(Setting::Authorized);
        let unseen = world.engine.unread().next().is_some();
        assert!(reported || waits || unseen, "{difference:?}");
    }
    assert!(world.engine.is_idle());
}

fn apply_until_nothing_is_left(seed: u64) -> usize {
    let mut world = World::new(seed);
    world.populate();
    for _ in 0..world.rng.usize(5..30) {
        world.disturb_policies();
    }
    let mut runs = 0;
    loop {
        // An authorization waits for the held changes of its device.
        let mut left = world.differences();
        left.retain(|it| it.change.field() != Field::Setting(Setting::Authorized));
        if left.is_empty() {
            return runs;
        }
        runs += 1;
        assert!(runs < 8, "{left:#?}");
        world.start_once(2.0);
        world.run_to_the_end();
    }
}

#[test]
fn repeated_apply_ends_with_an_empty_plan() {
    let runs = (0..300).map(apply_until_nothing_is_left);
    let most = runs.max().unwrap();
    // New tags make other policies match, and names and addresses become free one after another.
    assert!(most > 1, "{most}");
}

#[test]
fn only_the_approved_plan_is_applied_and_the_run_ends() {
    for seed in 0..300 {
        let lived = std::panic::catch_unwind(|| carry_out_some(seed));
        assert!(lived.is_ok(), "seed {seed} failed");
    }
}

#[test]
fn without_faults_the_whole_approved_plan_is_applied() {
    let mut world = servers(100);
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    let approved = world.start_once(0.5);
    world.run_to_the_end();
    assert!((30..70).contains(&approved.count()));
    assert_eq!(world.writes().len(), approved.count());
    let left: Vec<_> = world.engine.remaining().collect();
    assert_eq!(left.len(), 100 - approved.count());
    let others = |it: &RemainingChange<'_>| it.difference.hold == Some(Hold::NotInApprovedPlan);
    assert!(left.iter().all(others));
}

#[test]
fn a_change_that_keeps_failing_is_given_up_and_reported() {
    let mut world = servers(30);
    world.model.broken = Some(node_id(17));
    world.apply(fleet(attributes(&[("a", "gold")])));
    world.start_once(2.0);
    world.run_to_the_end();
    assert!(world.clock < Duration::from_mins(1), "{:?}", world.clock);
    let left: Vec<_> = world.engine.unread().map(|(_, it)| it.reason).collect();
    let undone: Vec<_> = world
        .engine
        .remaining()
        .map(|it| it.difference.node.clone())
        .collect();
    assert!(
        left == [Reason::ApiError] || undone == [node_id(17)],
        "{left:?} {undone:?}"
    );
}

#[test]
fn a_fleet_edited_while_no_process_ran_loses_keys_that_it_no_longer_declares() {
    let mut world = servers(3);
    world.apply(fleet(attributes(&[("a", "gold"), ("b", "gold")])));
    world.start();
    world.run_until(SOON);
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    kept.policy.desired = attributes(&[("a", "gold")]);
    kept.policy.generation += 1;
    world.kill();
    world.run_for(SOON);
    world.assert_converged();
    let left = |id| world.model.attributes[id].contains_key(&key("b"));
    assert!(!world.model.devices.keys().any(left));
}
