//! Random policies under `Clear` with a limit and approvals.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    CLEAR_TIMEOUT, History, World,
    builders::{attributes, clearing, policy_key, tag},
    model::{Faults, node_id},
};
use crate::{
    model::{ChangeLimit, NodeId, Route},
    plan::{ApprovedOn, ListOwnership, Mode, Ownership, Policy, Selector, Target},
    tailnet::State,
};

/// So many requests that fail in the time of the timeout are an API that cannot be worked with. As the backoffs grow to
/// five minutes and more, there may be only two.
const FAILING: usize = 2;

/// The changed devices with the time of each change.
type Log = Vec<(Duration, NodeId)>;

/// Runs a few minutes at most and logs the changes of each step.
fn run(world: &mut World, log: &mut Log, steps: u64) {
    for _ in 0..steps {
        world.run_for(Duration::from_secs(10));
        let now = world.clock;
        let changed = std::mem::take(&mut world.model.changed);
        log.extend(changed.into_iter().map(|id| (now, id)));
        check_ends(world);
    }
}

/// A release is given up only after the API has failed for the time of the timeout: with requests that are
/// lost, refused, or late for longer than a read stays fresh, nothing may be cleared in that time.
fn check_ends(world: &mut World) {
    let since = world.clock.saturating_sub(CLEAR_TIMEOUT);
    let failures = world.failures.iter().filter(|at| **at > since).count();
    for (key, report) in std::mem::take(&mut world.seen.ends) {
        let is_given_up = !matches!(&report.state, State::Deleting(None));
        assert!(
            !is_given_up || failures >= FAILING,
            "{key}, after {failures} failures: {report:?}"
        );
        world.given_up |= is_given_up;
    }
}

impl World {
    /// One random event of policies under `Clear` or of their devices.
    fn disturb_clears(&mut self) {
        let number = self.rng.usize(..3);
        let key = policy_key(number);
        match self.rng.u8(..9) {
            0..=2 if self.policies.get(&key).is_none_or(|kept| !kept.deleting) => {
                let policy = self.clearing_policy(number);
                self.apply(policy);
            }
            3 => self.delete(&key),
            4..=5 => {
                let id = node_id(self.rng.usize(..12));
                let tags = ["tag:a", "tag:b"][self.rng.usize(..2)];
                self.model.devices.get_mut(&id).unwrap().tags = [tag(tags)].into();
            }
            6 => self.new_faults(),
            7 => self.approve_on_policies(),
            _ => {}
        }
    }

    fn clearing_policy(&mut self, number: usize) -> Policy {
        let tags = ["tag:a", "tag:b"][self.rng.usize(..2)];
        let route = |number| format!("10.{number}.0.0/16").parse::<Route>().unwrap();
        let mut desired = attributes(&[(["a", "b", "c"][number], "gold")]);
        desired.enabled_routes = self.rng.bool().then(|| [route(number)].into());
        Policy {
            key: policy_key(number),
            target: Target::Selector(Selector {
                tags: [tag(tags)].into(),
                ..Selector::default()
            }),
            mode: [Mode::Enforce, Mode::Enforce, Mode::Approve][self.rng.usize(..3)],
            ownership: Ownership {
                enabled_routes: ListOwnership::AtLeast,
                ..Ownership::default()
            },
            ..clearing(desired)
        }
    }

    /// Approves everything that is pending on its own policy.
    fn approve_on_policies(&mut self) {
        let held = self.last_reports.iter().filter_map(|(key, report)| {
            let plan = report.held.as_ref()?;
            let on_policy = plan.on == ApprovedOn::Policy && self.policies.contains_key(key);
            on_policy.then(|| (key.clone(), plan.hash.clone()))
        });
        for (key, hash) in held.collect::<Vec<_>>() {
            self.approve(&key, &format!("plan:{hash}"));
        }
    }
}

pub const HISTORY: History = History {
    name: "releases",
    run: run_history,
    share: Duration::from_secs(16),
};

fn run_history(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.settings.limit = ChangeLimit::Devices(3);
    for number in 0..12 {
        let mut device = super::model::device(number);
        device.tags = [tag("tag:a")].into();
        world.model.add(device);
    }
    world.start();
    let mut log = Log::new();
    for _ in 0..30 {
        if !world.rng.begin_step() {
            continue;
        }
        world.disturb_clears();
        let steps = world.rng.u64(1..60);
        run(&mut world, &mut log, steps);
    }
    for (begin, _) in &log {
        // A request is logged up to some seconds after it was sent.
        let end = *begin + Duration::from_mins(59);
        let within = log.iter().filter(|(at, _)| begin <= at && *at < end);
        let devices: BTreeSet<_> = within.map(|(_, id)| id).collect();
        assert!(devices.len() <= 3, "{devices:?} from {begin:?}");
    }
    world.rng.begin_step();
    world.faults = Faults::default();
    world.limit(ChangeLimit::NONE);
    for number in 0..3 {
        world.delete(&policy_key(number));
    }
    for _ in 0..20 {
        world.run_for(Duration::from_mins(1));
        world.approve_on_policies();
        check_ends(&mut world);
    }
    assert!(world.policies.is_empty(), "{:?}", world.policies);
    let mut left = world.model.attributes.values();
    assert!(world.given_up || left.all(BTreeMap::is_empty));
    world.steps
}

/// No hour has more changed devices than the limit, no release is given up while the API works, and in the end
/// every finalizer is gone.
#[test]
fn random_releases_never_exceed_the_limit_and_none_is_given_up() {
    HISTORY.run_share();
}
