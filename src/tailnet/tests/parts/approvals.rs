use super::builders::{policy, tags};
use crate::{
    model::SettingValue,
    plan::{ApprovedOn, Change, Changes, DevicePlan, Difference, FrozenPlan, PolicyKey, Why},
    tailnet::{policy_entry::PolicyEntry, tests::simulation::model::node_id},
};

fn key() -> PolicyKey {
    policy(0, tags(&[])).key
}

fn authorize(after: bool) -> Change {
    Change::Setting {
        before: Some(SettingValue::Authorized(!after)),
        after: SettingValue::Authorized(after),
    }
}

fn changes() -> Changes {
    let mut changes = Changes::default();
    changes.insert(node_id(0), authorize(true));
    changes
}

/// A policy with a frozen plan of one change, which is approved in both ways.
fn entry() -> PolicyEntry {
    let policy = policy(0, tags(&[]));
    let mut entry = super::entry(policy.clone());
    entry.frozen_plan = FrozenPlan::freeze(&policy, 0, ApprovedOn::Policy, changes());
    entry.approved = changes();
    entry.approved_over_limit = changes();
    entry
}

/// Whether anything is approved or pending approval.
fn has_any(entry: &PolicyEntry) -> [bool; 3] {
    [
        entry.frozen_plan.is_some(),
        !entry.approved.is_empty(),
        !entry.approved_over_limit.is_empty(),
    ]
}

/// The policy asks for this change, as the device's plan shows.
fn plan(asked: Option<Change>) -> DevicePlan {
    DevicePlan {
        asked: asked.map(|change| (key(), change)).into_iter().collect(),
        ..DevicePlan::default()
    }
}

#[test]
fn an_approval_covers_a_change_as_long_as_it_is_needed_unaltered() {
    let mut entry = entry();
    entry.drop_changed(&key(), &node_id(0), &plan(Some(authorize(true))));
    assert_eq!(has_any(&entry), [true; 3]);
    // Another device has changed.
    entry.drop_changed(&key(), &node_id(1), &plan(None));
    assert_eq!(has_any(&entry), [true; 3]);
    entry.drop_changed(&key(), &node_id(0), &plan(Some(authorize(false))));
    assert_eq!(has_any(&entry), [false; 3]);
    // The approval does not come back with the difference.
    entry.drop_changed(&key(), &node_id(0), &plan(Some(authorize(true))));
    assert_eq!(has_any(&entry), [false; 3]);
}

#[test]
fn a_change_that_was_made_needs_another_approval_if_it_differs_again() {
    let mut entry = entry();
    entry.done(&Difference {
        node: node_id(0),
        device: String::new(),
        change: authorize(true),
        why: Why::Declared,
        owner: key(),
        others: Vec::new(),
        hold: None,
    });
    assert_eq!(has_any(&entry), [true, false, false]);
}

#[test]
fn a_device_that_is_no_longer_targeted_leaves_the_plan() {
    let mut entry = entry();
    entry.drop_device(&node_id(1));
    assert_eq!(has_any(&entry), [true; 3]);
    entry.drop_device(&node_id(0));
    assert_eq!(has_any(&entry), [false; 3]);
}

#[test]
fn an_edit_discards_what_was_held_and_approved() {
    let mut entry = entry();
    entry.discard();
    assert_eq!(has_any(&entry), [false; 3]);
}
