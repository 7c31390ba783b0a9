use jiff::{SignedDuration, Timestamp};

use super::entry;
use crate::tailnet::tests::simulation::builders::fleet;
use crate::{
    model::Device,
    plan::{DeleteInactive, DesiredSettings},
    tailnet::{
        policy_entry::PolicyEntry,
        tests::simulation::model::{device, node_id},
    },
};

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A policy that expires keys at this time.
fn expiring(at: Timestamp) -> PolicyEntry {
    entry(fleet(DesiredSettings {
        expire_key_at: Some(at),
        ..DesiredSettings::default()
    }))
}

fn expiring_at(expires: Timestamp) -> Device {
    Device {
        expires: Some(expires),
        ..device(0)
    }
}

#[test]
fn a_policy_without_actions_has_none_and_one_that_declares_some_has() {
    assert!(!entry(fleet(DesiredSettings::default())).has_actions());
    assert!(expiring(NOW).has_actions());
}

#[test]
fn an_expiry_that_was_begun_is_found_done_once_the_key_has_expired() {
    let at = NOW - SignedDuration::from_mins(5);
    let later = NOW + SignedDuration::from_hours(1);
    let mut entry = expiring(at);
    assert!(entry.found_done(&expiring_at(at), NOW).is_none());
    assert!(entry.begin_expiry(at, &node_id(0), Some(later)));
    // The key has not expired.
    assert!(entry.found_done(&expiring_at(later), NOW).is_none());
    assert!(entry.found_done(&expiring_at(at), NOW).is_some());
    // Nobody has begun it on another device.
    let other = Device {
        expires: Some(at),
        ..device(1)
    };
    assert!(entry.found_done(&other, NOW).is_none());
}

/// A policy that deletes one device a day, after a day of inactivity.
fn deleting() -> PolicyEntry {
    entry(fleet(DesiredSettings {
        delete_inactive: Some(DeleteInactive {
            inactive_for: SignedDuration::from_hours(24),
            max_per_day: 1,
        }),
        ..DesiredSettings::default()
    }))
}

/// Not connected for so many hours.
fn away(number: usize, hours: i64) -> Device {
    Device {
        connected: Some(false),
        last_seen: Some(NOW - SignedDuration::from_hours(hours)),
        ..device(number)
    }
}

#[test]
fn devices_take_turns_up_to_the_number_of_a_day() {
    let mut entry = deleting();
    assert_eq!(entry.update_turn(&away(0, 48), false, NOW), None);
    assert_eq!(entry.update_turn(&away(1, 48), false, NOW), None);
    assert!(
        entry.deletion_queue().has_turn(&node_id(0))
            && !entry.deletion_queue().has_turn(&node_id(1))
    );
    assert!(entry.deletion_queue().waiting().eq([&node_id(1)]));
    // A device that comes back gives its turn away.
    assert_eq!(entry.update_turn(&away(0, 1), false, NOW), Some(node_id(1)));
    entry.update_turn(&away(1, 48), false, NOW);
    assert!(entry.deletion_queue().has_turn(&node_id(1)));
}

#[test]
fn a_deletion_that_was_begun_counts_for_a_day() {
    let mut entry = deleting();
    assert!(entry.may_begin_deletion(&node_id(0), NOW));
    entry.begin_deletion(&node_id(0), "fra".to_owned(), NOW);
    assert!(!entry.may_begin_deletion(&node_id(1), NOW));
    entry.update_turn(&away(1, 48), false, NOW);
    assert!(!entry.deletion_queue().has_turn(&node_id(1)));
    assert!(entry.may_begin_deletion(&node_id(1), NOW + SignedDuration::from_hours(25)));
}

#[test]
fn deletions_by_a_deleted_policy_count_for_its_successor() {
    let mut entry = deleting();
    entry.inherit_deletions(1);
    entry.update_turn(&away(0, 48), false, NOW);
    assert!(!entry.deletion_queue().has_turn(&node_id(0)));
    assert!(!entry.may_begin_deletion(&node_id(0), NOW));
}

#[test]
fn a_device_that_a_guardrail_protects_takes_no_turn() {
    let mut entry = deleting();
    entry.update_turn(&away(0, 48), true, NOW);
    assert!(!entry.deletion_queue().has_turn(&node_id(0)));
    assert_eq!(entry.deletion_queue().waiting().count(), 0);
}
