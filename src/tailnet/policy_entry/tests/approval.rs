use std::collections::BTreeMap;

use crate::tailnet::tests::simulation::builders::{policy, tags};
use crate::{
    model::SettingValue,
    plan::{
        Approvals, ApprovedOn, Change, Changes, DevicePlan, Difference, Field, FrozenPlan,
        PolicyKey, Why,
    },
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
    for on in [ApprovedOn::Policy, ApprovedOn::Tailnet] {
        let plan = FrozenPlan::freeze(&policy, 0, on, changes()).unwrap();
        let given = Approvals {
            plans: [plan.hash.clone()].into(),
            ..Approvals::default()
        };
        entry.freeze(plan);
        entry.approval_mut().set_given(given.clone());
        assert!(entry.use_approval(&given).is_some());
    }
    entry.approval_mut().set_given(Approvals::default());
    entry.freeze(FrozenPlan::freeze(&policy, 2, ApprovedOn::Policy, changes()).unwrap());
    entry
}

/// Whether anything is pending approval, approved on the policy, or approved over the limit.
fn has_any(entry: &PolicyEntry) -> [bool; 3] {
    let state = entry.approval().state(&node_id(0), false);
    let any = |changes: Option<&BTreeMap<Field, Change>>| changes.is_some_and(|it| !it.is_empty());
    [
        entry.approval().frozen_plan().is_some(),
        any(state.approved),
        any(state.exempt_from_limit),
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
    entry
        .approval_mut()
        .drop_changed(&key(), &node_id(0), &plan(Some(authorize(true))));
    assert_eq!(has_any(&entry), [true; 3]);
    // Another device has changed.
    entry
        .approval_mut()
        .drop_changed(&key(), &node_id(1), &plan(None));
    assert_eq!(has_any(&entry), [true; 3]);
    entry
        .approval_mut()
        .drop_changed(&key(), &node_id(0), &plan(Some(authorize(false))));
    assert_eq!(has_any(&entry), [false; 3]);
    // The approval does not come back with the difference.
    entry
        .approval_mut()
        .drop_changed(&key(), &node_id(0), &plan(Some(authorize(true))));
    assert_eq!(has_any(&entry), [false; 3]);
}

#[test]
fn a_change_that_was_made_needs_another_approval_if_it_differs_again() {
    let mut entry = entry();
    entry.approval_mut().done(&Difference {
        node: node_id(0),
        device: String::new(),
        change: authorize(true),
        why: Why::Declared,
        cause: None,
        owner: key(),
        others: Vec::new(),
        hold: None,
    });
    assert_eq!(has_any(&entry), [true, false, false]);
}

#[test]
fn a_device_that_is_no_longer_targeted_leaves_the_plan() {
    let mut entry = entry();
    entry.approval_mut().drop_device(&node_id(1));
    assert_eq!(has_any(&entry), [true; 3]);
    entry.approval_mut().drop_device(&node_id(0));
    assert_eq!(has_any(&entry), [false; 3]);
}

#[test]
fn an_edit_discards_what_was_held_and_approved() {
    let mut entry = entry();
    entry.approval_mut().discard();
    assert_eq!(has_any(&entry), [false; 3]);
}
