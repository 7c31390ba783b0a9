use std::collections::BTreeSet;

use crate::tailnet::tests::simulation::builders::{attributes, fleet, key};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Binding, Capacity, DeviceIndex, Policy},
    tailnet::{
        policy_entry::PolicyEntry,
        tests::simulation::model::{device, node_id},
    },
};

fn entry() -> PolicyEntry {
    super::entry(fleet(attributes(&[("a", "1"), ("b", "2")])))
}

fn keys(names: &[&str]) -> BTreeSet<AttributeKey> {
    names.iter().map(|name| key(name)).collect()
}

fn owned(entry: &PolicyEntry, number: usize) -> BTreeSet<AttributeKey> {
    let owned = entry.needed_record().owned.known_at(&node_id(number));
    owned.cloned().unwrap_or_default()
}

fn index(numbers: &[usize]) -> DeviceIndex {
    let mut index = DeviceIndex::default();
    for number in numbers {
        index.insert(device(*number));
    }
    index
}

fn selected(numbers: &[usize]) -> Binding {
    let nodes: BTreeSet<NodeId> = numbers.iter().map(|number| node_id(*number)).collect();
    Binding::Selector(nodes)
}

#[test]
fn a_key_is_owned_once_the_policy_manages_it() {
    let mut entry = entry();
    assert!(entry.adopt(&node_id(0), &keys(&["a"]), &keys(&["a"])));
    assert!(!entry.adopt(&node_id(0), &keys(&["a"]), &keys(&["a"])));
    assert_eq!(owned(&entry, 0), keys(&["a"]));
    assert!(owned(&entry, 1).is_empty());
}

#[test]
fn a_key_whose_request_is_held_before_it_was_sent_is_not_owned() {
    let mut entry = entry();
    entry.adopt(&node_id(0), &keys(&["a", "b"]), &keys(&["a", "b"]));
    entry.adopt(&node_id(0), &keys(&["b"]), &keys(&["b"]));
    assert_eq!(owned(&entry, 0), keys(&["b"]));
    entry.attributes_sent(&node_id(0));
    entry.adopt(&node_id(0), &keys(&[]), &keys(&[]));
    assert_eq!(owned(&entry, 0), keys(&["b"]));
}

#[test]
fn a_key_that_another_policy_declares_is_dropped() {
    let mut entry = entry();
    entry.adopt(&node_id(0), &keys(&["a", "b"]), &BTreeSet::new());
    let never = |_: &Policy, _: &AttributeKey| false;
    entry.drop_keys(&node_id(0), |_, it| *it == key("a"), never);
    assert_eq!(owned(&entry, 0), keys(&["a"]));
}

#[test]
fn a_device_that_no_longer_matches_is_released_and_a_missing_one_is_kept() {
    let mut entry = entry();
    for number in 0..3 {
        entry.adopt(&node_id(number), &keys(&["a"]), &BTreeSet::new());
    }
    // The list has no device 2.
    entry.release_unmatched(Some(&selected(&[0])), &index(&[0, 1]), |_| false, 1);
    assert!(owned(&entry, 1).is_empty());
    assert_eq!(
        (owned(&entry, 0), owned(&entry, 2)),
        (keys(&["a"]), keys(&["a"]))
    );
}

#[test]
fn beyond_the_capacity_of_the_record_nothing_is_owned() {
    let mut entry = entry();
    entry.adopt(&node_id(0), &keys(&["a"]), &BTreeSet::new());
    assert!(entry.record(&index(&[0]), Capacity::default()).is_empty());
    assert_eq!(entry.unrecorded(), 0);
    assert_eq!(owned(&entry, 0), keys(&["a"]));
}
