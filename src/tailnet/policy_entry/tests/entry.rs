use std::sync::Arc;

use super::{entry, input, invalid_entry, recorded_entry};
use crate::tailnet::tests::simulation::builders::{
    attributes, blank, hostname, policy, policy_key, tags,
};
use crate::{
    plan::{
        Binding, Bound, DeviceIndex, Mode, Owner, Policy, PolicyInput, PolicyRecord, StatusState,
        Suspender,
    },
    tailnet::{
        policy_entry::PolicyEntry,
        tests::simulation::model::{device, node_id},
    },
};

/// Bound to a device that was named like this.
fn bound(number: usize, named: &str) -> PolicyRecord {
    PolicyRecord {
        bound: Some(Bound {
            node: node_id(number),
            owner: Owner::of(&device(number)),
            named: named.to_owned(),
        }),
        ..PolicyRecord::default()
    }
}

/// How the record names the device of policy 0.
const NAMED: &str = "hostname host-0";

#[test]
fn the_recorded_device_counts_as_long_as_the_spec_names_it_in_the_same_way() {
    let entry = recorded_entry(policy(0, tags(&[])), bound(3, NAMED));
    assert_eq!(entry.bound_node(), Some(&node_id(3)));
    let renamed = Policy {
        target: hostname("other"),
        ..blank(policy_key(0))
    };
    assert_eq!(recorded_entry(renamed, bound(3, NAMED)).bound_node(), None);
}

#[test]
fn the_record_of_the_bound_device_changes_only_if_another_one_is_found() {
    let mut index = DeviceIndex::default();
    index.insert(device(0));
    let found = Binding::Device(node_id(0));
    let entry = recorded_entry(policy(0, tags(&[])), bound(3, NAMED));
    assert_eq!(entry.record_of(None, &index), bound(3, NAMED).bound);
    let record = entry.record_of(Some(&found), &index).unwrap();
    assert_eq!((record.node, record.named.as_str()), (node_id(0), NAMED));
    // The record of an invalid policy stays as it is.
    let invalid = invalid_entry(policy(0, tags(&[])), bound(3, NAMED));
    assert_eq!(
        invalid.record_of(Some(&found), &index),
        bound(3, NAMED).bound
    );
}

#[test]
fn a_policy_may_change_the_devices_that_it_targets_and_those_that_it_must_clear() {
    let mut entry = entry(policy(0, attributes(&[("a", "1")])));
    entry.targets_mut().bind(Some(Binding::Device(node_id(0))));
    assert!(entry.managed().into_iter().eq([&node_id(0)]));
    assert!(entry.nodes().eq([&node_id(0)]));
}

#[test]
fn a_policy_whose_rules_alone_differ_is_held_once() {
    let is_shared = |entry: &PolicyEntry| {
        let (declared, admitted) = (entry.declared().as_ref(), entry.policy().as_ref());
        Arc::ptr_eq(declared.unwrap(), admitted.unwrap())
    };
    assert!(is_shared(&entry(policy(0, tags(&[])))));
    let suspended = Policy {
        mode: Mode::Suspended(Suspender::Tailnet),
        ..policy(0, tags(&[]))
    };
    let declared = input(policy(0, tags(&[])), PolicyRecord::default());
    let entry = PolicyEntry::new(declared, Ok(Arc::new(suspended)));
    assert!(!is_shared(&entry));
}

#[test]
fn a_reconcile_is_requested_until_the_status_names_the_request() {
    let declared = PolicyInput {
        request: [Some("now".to_owned()), None],
        ..input(policy(0, tags(&[])), PolicyRecord::default())
    };
    let mut entry = PolicyEntry::new(declared, Ok(Arc::new(policy(0, tags(&[])))));
    assert!(entry.asks_for_reconcile());
    entry.finish_request();
    assert!(!entry.asks_for_reconcile());
}

#[test]
fn without_a_finalizer_the_record_of_managed_devices_is_not_durable() {
    let mut record = PolicyRecord::default();
    std::sync::Arc::make_mut(&mut record.managed).hold(vec![node_id(0)]);
    let declared = PolicyInput {
        status_state: StatusState {
            lacks_finalizer: true,
            ..StatusState::default()
        },
        ..input(policy(0, tags(&[])), record.clone())
    };
    let entry = PolicyEntry::new(declared, Ok(Arc::new(policy(0, tags(&[])))));
    assert!(!entry.records().are_durable());
    let kept = recorded_entry(policy(0, tags(&[])), record);
    assert!(kept.records().are_durable());
}

#[test]
fn another_term_starts_with_the_record_that_is_stored() {
    let mut entry = recorded_entry(policy(0, tags(&[])), bound(3, NAMED));
    let other = bound(0, NAMED);
    entry.record_binding(other.bound.clone(), None);
    entry.confirm(Arc::new(other));
    entry.start_term();
    assert_eq!(*entry.needed_record(), bound(3, NAMED));
    assert!(entry.records().are_durable());
}
