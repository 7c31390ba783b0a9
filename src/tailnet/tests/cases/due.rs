//! What a step leaves to the next one is done at once, not with the next report or poll.

use std::time::Duration;

use super::{
    World,
    approvals::held_servers,
    builders::{fleet, policy_key, tags, with_approval},
};
use crate::tailnet::Notification;

fn is_approved(world: &World) -> bool {
    let mut notifications = world.seen.notifications.iter();
    notifications.any(|(_, it)| matches!(it, Notification::Approved(_)))
}

#[test]
fn an_approval_is_used_as_soon_as_its_plan_is_frozen_although_no_status_can_be_written() {
    let mut world = held_servers(2);
    let key = policy_key(0);
    let hash = world.hash(&key);
    world.run_for(Duration::from_mins(2));
    // The next process finds the approval and freezes the same plan.
    let kept = world.policies.get_mut(&key).unwrap();
    kept.approvals = crate::plan::Approvals::parse(Some(&format!("plan:{hash}")));
    world.faults.loses_reports = true;
    world.clear_seen();
    world.kill();
    world.run_for(Duration::from_secs(20));
    assert!(is_approved(&world));
    // The record of the used approval is not durable.
    assert!(world.writes().is_empty());
    world.faults.loses_reports = false;
    world.apply(with_approval(fleet(tags(&["tag:s", "tag:a"]))));
    world.run_for(Duration::from_mins(2));
    assert_ne!(world.hash(&key), hash);
}
