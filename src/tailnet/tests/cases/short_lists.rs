//! Lists that lack existing devices, once or several times: they cause no decision.

use std::{collections::BTreeSet, time::Duration};

use super::{
    World,
    builders::{
        attributes, blank, fleet, hostname, key, policy, policy_key, servers, tag, tags, world,
    },
    contested,
    fleets::reported,
    model::{device, node_id},
};
use crate::{
    model::SettingValue,
    model::{Device, NodeId},
    plan::{Binding, Deletion, DesiredSettings, Policy, PolicyKey, Target},
    tailnet::{Input, Request, State},
};

/// Long enough for several lists and their consequences.
pub const A_WHILE: Duration = Duration::from_mins(5);

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node_id).collect()
}

impl World {
    /// The next lists all lack these devices.
    pub fn lack(&mut self, lists: usize, numbers: impl IntoIterator<Item = usize>) {
        let lacking = ids(numbers);
        let short = std::iter::repeat_n(lacking, lists);
        self.model.short = short.collect();
    }

    /// Runs until all short lists have been read, and a moment longer.
    pub fn run_past_short_lists(&mut self) {
        while !self.model.short.is_empty() {
            self.run_for(Duration::from_millis(500));
        }
        self.run_for(Duration::from_secs(10));
    }

    fn bound(&self, key: &PolicyKey) -> Option<NodeId> {
        let bound = self.policies[key].record.bound.as_ref();
        bound.map(|bound| bound.node.clone())
    }

    /// The number of reads of a single device.
    pub fn lookups(&self, number: usize) -> usize {
        self.count(|request| *request == Request::Device(node_id(number)))
    }

    fn state(&self) -> &State {
        &self.last_reports[&policy_key(0)].state
    }
}

/// Another device with the hostname of the first.
fn twin() -> Device {
    Device {
        node_id: node_id(9),
        hostname: "host-0".to_owned(),
        ..device(9)
    }
}

/// Two devices with one hostname that a policy names, and some others.
fn ambiguous() -> World {
    let mut world = world(8);
    world.model.add(twin());
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty());
    world
}

/// A policy that is bound to the first device before another one of the name joins.
fn bound_with_twin(policy: Policy) -> World {
    let mut world = world(8);
    world.apply(policy);
    world.start();
    world.run_for(A_WHILE);
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(0)));
    let owner = world.model.devices[&node_id(0)].tags.clone();
    world.model.add(Device {
        tags: owner,
        ..twin()
    });
    world.run_for(A_WHILE);
    world.clear_seen();
    world
}

#[test]
fn lists_without_one_of_two_devices_with_one_hostname_choose_neither() {
    for lists in [1, 2, 5] {
        for lacking in [vec![0], vec![9], (0..4).collect()] {
            let mut world = ambiguous();
            world.lack(lists, lacking);
            world.run_past_short_lists();
            world.run_for(A_WHILE);
            assert!(world.writes().is_empty(), "{:?}", world.writes());
            assert_eq!(world.bound(&policy_key(0)), None);
            world.assert_converged();
        }
    }
}

#[test]
fn of_two_devices_with_one_hostname_the_other_is_bound_once_one_is_gone() {
    let mut world = ambiguous();
    world.model.remove(&node_id(0));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(9)));
    assert_eq!(world.lookups(0), 1);
    world.assert_converged();
}

#[test]
fn a_process_that_starts_with_short_lists_chooses_neither_of_two() {
    for lacking in [vec![0], vec![0, 9]] {
        for lists in [1, 2, 5] {
            for lacking_then in [None, Some(0)] {
                let mut world = ambiguous();
                world.lack(lists, lacking.clone());
                let then = lacking_then.map(node_id).into_iter().collect();
                world.model.short.push_back(then);
                world.kill();
                world.run_for(A_WHILE);
                assert!(world.writes().is_empty());
                assert_eq!(world.bound(&policy_key(0)), None);
                world.assert_converged();
            }
        }
    }
}

#[test]
fn of_two_devices_with_one_hostname_the_other_is_bound_if_one_left_before_a_process_started() {
    let mut world = ambiguous();
    world.model.remove(&node_id(0));
    world.kill();
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(9)));
    assert_eq!(world.lookups(0), 1);
    world.assert_converged();
}

#[test]
fn a_term_or_a_connection_that_starts_with_a_short_list_chooses_neither_of_two() {
    for lists in [1, 3] {
        let mut world = ambiguous();
        world.lack(lists, [0]);
        world.lose_the_lead();
        world.run_past_short_lists();
        world.lack(lists, [0]);
        world.step(Input::connection(Ok(())));
        world.run_past_short_lists();
        world.run_for(A_WHILE);
        assert!(world.writes().is_empty());
        world.assert_converged();
    }
}

#[test]
fn a_bound_device_stays_bound_however_many_lists_lack_it() {
    for lists in [1, 2, 3, 10] {
        for lacking in [vec![0], (0..5).collect()] {
            let mut world = bound_with_twin(policy(0, tags(&["tag:a"])));
            world.lack(lists, lacking);
            world.run_past_short_lists();
            world.run_for(A_WHILE);
            assert_eq!(world.bound(&policy_key(0)), Some(node_id(0)));
            assert!(world.writes().is_empty());
            let reads = world.lookups(0);
            assert!(reads <= 2, "{reads} lookups");
            world.assert_converged();
        }
    }
}

#[test]
fn nothing_is_sent_to_a_bound_device_that_lists_lack_and_that_is_reported() {
    let mut world = bound_with_twin(policy(0, tags(&["tag:a"])));
    world.lack(1_000, [0]);
    world.run_for(A_WHILE);
    world.apply(policy(0, tags(&["tag:a", "tag:b"])));
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty());
    let missing = Binding::Missing(node_id(0));
    let reported = matches!(world.state(), State::Unbound { binding, .. } if *binding == missing);
    assert!(reported, "{:?}", world.state());
    // Read again as rarely as attributes, not with each list.
    assert!(world.lookups(0) <= 2, "{} lookups", world.lookups(0));
    world.model.short.clear();
    world.run_for(A_WHILE);
    assert_eq!(world.writes().len(), 1);
    world.assert_converged();
}

#[test]
fn a_bound_device_that_is_gone_costs_two_lists_and_one_read() {
    let mut world = bound_with_twin(policy(0, tags(&["tag:a"])));
    world.model.remove(&node_id(0));
    while world.bound(&policy_key(0)) == Some(node_id(0)) {
        world.run_for(Duration::from_secs(1));
    }
    let lists = world.count(|request| *request == Request::Devices);
    assert!(lists <= 3, "{lists} lists");
    assert_eq!(world.lookups(0), 1);
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(9)));
    world.run_for(A_WHILE);
    world.assert_converged();
}

#[test]
fn a_failed_read_proves_nothing() {
    let mut world = bound_with_twin(policy(0, tags(&["tag:a"])));
    world.model.broken = Some(node_id(0));
    world.lack(30, [0]);
    world.run_past_short_lists();
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(0)));
    let lookups = world.lookups(0);
    assert!((2..30).contains(&lookups), "{lookups} lookups");
    world.model.broken = None;
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty());
    world.assert_converged();
}

#[test]
fn under_clear_a_device_that_lists_lack_is_neither_released_nor_dropped() {
    let clear = |target| Policy {
        target,
        desired: DesiredSettings {
            enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
            ..attributes(&[("a", "gold")])
        },
        deletion: Deletion::Clear,
        ..blank(policy_key(0))
    };
    let selected = fleet(DesiredSettings::default()).target;
    for target in [hostname("host-0"), selected] {
        for lists in [1, 2, 4] {
            let mut world = world(8);
            let number_of_servers = if matches!(target, Target::Selector(_)) {
                4
            } else {
                1
            };
            for number in 0..number_of_servers {
                let device = world.model.devices.get_mut(&node_id(number)).unwrap();
                device.tags = [tag("tag:s")].into();
            }
            world.apply(clear(target.clone()));
            world.start();
            world.run_for(A_WHILE);
            world.model.add(Device {
                tags: [tag("tag:a")].into(),
                ..twin()
            });
            world.run_for(A_WHILE);
            let before = world.policies[&policy_key(0)].record.clone();
            world.clear_seen();
            for restarts in [false, true] {
                world.lack(lists, 0..3);
                if restarts {
                    world.kill();
                }
                world.run_past_short_lists();
                world.run_for(A_WHILE);
                let kept = &world.policies[&policy_key(0)].record;
                assert_eq!(kept.managed, before.managed, "{target:?}, {lists} lists");
                assert_eq!(kept.bound, before.bound);
                assert!(world.writes().is_empty(), "{:?}", world.writes());
                world.assert_converged();
            }
        }
    }
}

#[test]
fn a_released_device_that_lists_lack_is_cleared_once_it_is_listed_again() {
    let mut world = servers(3);
    world.apply(Policy {
        deletion: Deletion::Clear,
        ..fleet(attributes(&[("a", "gold")]))
    });
    world.start();
    world.run_for(A_WHILE);
    // The device leaves the selection and the lists at the same time.
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [tag("tag:other")].into();
    world.model.broken = Some(node_id(0));
    world.run_for(A_WHILE);
    world.lack(10, [0]);
    world.run_past_short_lists();
    world.model.broken = None;
    world.run_for(Duration::from_mins(10));
    assert!(world.model.attributes[&node_id(0)].is_empty());
    world.assert_converged();
}

#[test]
fn an_address_is_not_free_because_a_list_lacks_its_device() {
    let mut world = world(3);
    let taken = world.model.devices[&node_id(1)].ipv4.unwrap();
    world.apply(policy(
        0,
        DesiredSettings {
            settings: [SettingValue::Ipv4(taken.to_string().parse().unwrap())].into(),
            ..DesiredSettings::default()
        },
    ));
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    world.lack(1, [1]);
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty());
    world.model.remove(&node_id(1));
    world.run_for(A_WHILE);
    assert_eq!(world.writes().len(), 1);
    world.assert_converged();
}

/// Two policies that claim one setting of the tailnet: the first one has it.
fn rivals(first: Policy, claims: [DesiredSettings; 2]) -> World {
    let mut world = world(3);
    let server = world.model.devices.get_mut(&node_id(0)).unwrap();
    server.tags = [tag("tag:s")].into();
    let [desired, wanted] = claims;
    world.apply(Policy { desired, ..first });
    world.start();
    world.run_for(A_WHILE);
    world.apply(policy(1, wanted));
    world.run_for(A_WHILE);
    world.clear_seen();
    world
}

#[test]
fn a_process_that_starts_with_a_short_list_gives_no_claim_of_the_lacking_device_away() {
    let address = |policy: Policy| {
        let desired = DesiredSettings {
            settings: [SettingValue::Ipv4("100.80.9.9".parse().unwrap())].into(),
            ..DesiredSettings::default()
        };
        rivals(policy, [desired.clone(), desired])
    };
    let attribute = |policy: Policy| {
        rivals(
            policy,
            [attributes(&[("a", "gold")]), contested::number("a")],
        )
    };
    let single = || policy(0, DesiredSettings::default());
    let selector = || fleet(DesiredSettings::default());
    let worlds = vec![
        address(single()),
        attribute(single()),
        attribute(selector()),
    ];
    for mut world in worlds {
        world.lack(1, [0]);
        world.kill();
        world.run_for(A_WHILE);
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        world.lack(1, [0]);
        world.lose_the_lead();
        world.run_for(A_WHILE);
        assert!(world.writes().is_empty(), "{:?}", world.writes());
    }
}

#[test]
fn a_setting_of_a_device_that_is_gone_since_the_last_process_is_free_after_two_lists() {
    let mut world = rivals(
        policy(0, DesiredSettings::default()),
        [attributes(&[("a", "gold")]), contested::number("a")],
    );
    world.model.remove(&node_id(0));
    world.kill();
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.writes().len(), 1);
    world.run_for(A_WHILE);
    world.assert_converged();
}

#[test]
fn a_key_is_deleted_on_a_device_that_one_list_lacked_meanwhile() {
    let mut world = servers(2);
    world.apply(fleet(attributes(&[("a", "gold"), ("b", "gold")])));
    world.start();
    world.run_for(A_WHILE);
    world.lack(1, [1]);
    world.run_for(Duration::from_secs(62));
    world.apply(fleet(attributes(&[("a", "gold")])));
    world.run_for(Duration::from_mins(20));
    let has = |number| {
        let attributes = &world.model.attributes[&node_id(number)];
        attributes.contains_key(&key("b"))
    };
    assert!(!has(0) && !has(1));
    world.assert_converged();
}

#[test]
fn a_device_that_a_list_has_twice_is_read_by_itself() {
    let mut world = world(2);
    let mut other = device(7);
    other.hostname = "host-1-again".to_owned();
    world.apply(policy(0, tags(&["tag:a"])));
    world.apply(Policy {
        target: hostname("host-0-again"),
        ..policy(1, tags(&["tag:b"]))
    });
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    world.model.twice = ids([0, 1]);
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty());
    assert_eq!(world.lookups(0), 1);
    assert_eq!(world.bound(&policy_key(1)), None);
    world.assert_converged();
}

#[test]
fn a_bound_device_that_one_list_shows_as_shared_in_stays_bound() {
    let mut world = bound_with_twin(policy(0, tags(&["tag:a"])));
    let own = world.model.devices[&node_id(0)].clone();
    let mut shared = own.clone();
    shared.external = true;
    world.model.add(shared);
    while world.seen.requests.is_empty() {
        world.run_for(Duration::from_millis(500));
    }
    world.run_for(Duration::from_secs(1));
    world.model.add(own);
    world.run_for(A_WHILE);
    assert_eq!(world.bound(&policy_key(0)), Some(node_id(0)));
    assert!(world.writes().is_empty());
    world.assert_converged();
}

#[test]
fn a_connection_to_another_tailnet_reads_no_device_of_the_previous_one() {
    let mut world = servers(30);
    world.apply(fleet(tags(&["tag:s"])));
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    for number in 0..30 {
        world.model.remove(&node_id(number));
    }
    let mut server = device(40);
    server.tags = [tag("tag:s")].into();
    world.model.add(server);
    world.step(Input::connection(Ok(())));
    world.run_for(Duration::from_secs(30));
    assert_eq!(reported(&world).matched, 1);
    assert_eq!(
        world.count(|request| matches!(request, Request::Device(_))),
        0
    );
    assert_eq!(world.tailnet_report.devices, Some(1));
}
