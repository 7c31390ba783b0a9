//! A device that lists lack is kept for a while, and the one that has replaced it has its address.

use std::time::Duration;

use super::{World, builders, model};
use crate::{
    model::{Device, SettingValue},
    plan::{DesiredSettings, Hold, Policy},
    tailnet::State,
};

/// The address of device 1 is desired for device 0.
fn wanting() -> Policy {
    builders::policy(
        0,
        DesiredSettings {
            settings: [SettingValue::Ipv4("100.80.0.1".parse().unwrap())].into(),
            ..DesiredSettings::default()
        },
    )
}

fn hold(world: &World) -> Option<Hold> {
    match &world.last_reports[&builders::policy_key(0)].state {
        State::Bound(report) => report.differences[0].hold.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_belongs_to_the_device_that_has_replaced_the_former_one() {
    let mut world = builders::world(2);
    world.apply(wanting());
    world.start();
    world.run_for(Duration::from_mins(5));
    let id = model::node_id(1);
    world.model.remove(&id);
    world.model.add(Device {
        node_id: model::node_id(9),
        ..model::device(1)
    });
    world.run_for(Duration::from_hours(1));
    let taken = |by: &str| Some(Hold::AddressInUse(by.to_owned()));
    assert_eq!(hold(&world), taken("name-1 (n9CNTRL)"));
    assert!(world.writes().is_empty(), "{:?}", world.writes());
}

/// A new process knows the former device from the status alone. Before it is proven to be gone, the policy has no
/// device, and must not lose what it declared to one of lower precedence.
#[test]
fn a_policy_whose_device_was_replaced_during_a_restart_keeps_its_precedence() {
    let address = |number, priority| Policy {
        priority,
        ..builders::policy(
            number,
            DesiredSettings {
                settings: [SettingValue::Ipv4("100.80.9.9".parse().unwrap())].into(),
                ..DesiredSettings::default()
            },
        )
    };
    let mut world = builders::world(2);
    world.apply(address(1, 1));
    world.apply(address(0, -1));
    world.start();
    world.run_for(Duration::from_mins(5));
    assert_eq!(world.writes().len(), 1);
    world.clear_seen();
    world.model.remove(&model::node_id(1));
    world.model.add(Device {
        node_id: model::node_id(9),
        ..model::device(1)
    });
    world.kill();
    world.run_for(Duration::from_hours(1));
    let changed = world
        .writes()
        .iter()
        .flat_map(|call| call.nodes())
        .collect::<Vec<_>>();
    assert_eq!(changed, [&model::node_id(9)]);
}
