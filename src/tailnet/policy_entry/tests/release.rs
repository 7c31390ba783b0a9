use std::collections::BTreeSet;

use super::{entry, invalid_entry};
use crate::tailnet::tests::simulation::builders::{attributes, clearing, fleet, key, tags};
use crate::{
    model::NodeId,
    plan::{Binding, DesiredSettings, DeviceIndex, ManagedDevices, PolicyRecord},
    tailnet::{policy_entry::PolicyEntry, tests::simulation::model::node_id},
};

fn selected(numbers: &[usize]) -> Binding {
    Binding::Selector(numbers.iter().map(|number| node_id(*number)).collect())
}

/// A policy under `Clear` that has set a key on two devices.
fn managing() -> PolicyEntry {
    let mut entry = entry(clearing(attributes(&[("a", "1")])));
    assert!(!entry.hold(
        Some(&selected(&[0, 1])),
        &crate::plan::DeviceIndex::default()
    ));
    for number in 0..2 {
        entry.adopt(&node_id(number), &[key("a")].into(), &BTreeSet::new());
    }
    entry
}

fn released(entry: &PolicyEntry) -> Vec<NodeId> {
    let released = entry.needed_record().managed.released_devices();
    released.into_iter().cloned().collect()
}

#[test]
fn under_clear_the_devices_are_recorded_and_under_retain_they_are_not() {
    let entry = managing();
    assert!(entry.clears() && !entry.retains());
    assert_eq!(entry.needed_record().managed.nodes.len(), 2);
    let mut retaining = super::entry(fleet(attributes(&[("a", "1")])));
    assert!(
        !retaining.hold(Some(&selected(&[0])), &crate::plan::DeviceIndex::default())
            && retaining.retains()
    );
    assert!(retaining.needed_record().managed.is_empty());
}

#[test]
fn a_policy_that_puts_nothing_clearable_on_its_devices_records_none() {
    let mut entry = entry(clearing(tags(&["tag:a"])));
    assert!(!entry.hold(Some(&selected(&[0])), &crate::plan::DeviceIndex::default()));
    assert!(entry.needed_record().managed.is_empty());
}

#[test]
fn a_device_that_no_longer_matches_is_released_unless_it_may_return() {
    let mut entry = managing();
    entry.release_unmatched_devices(Some(&selected(&[0])), |_| true);
    assert!(released(&entry).is_empty());
    entry.release_unmatched_devices(Some(&selected(&[0])), |_| false);
    assert_eq!(released(&entry), [node_id(1)]);
    // While it is undecided which devices match, nothing is released.
    entry.release_unmatched_devices(None, |_| false);
    assert_eq!(released(&entry), [node_id(1)]);
}

#[test]
fn a_device_on_which_the_expression_fails_is_kept() {
    let mut entry = managing();
    entry.targets_mut().set_selector_errors([node_id(1)].into());
    entry.release_unmatched_devices(Some(&selected(&[0])), |_| false);
    assert!(released(&entry).is_empty());
}

#[test]
fn an_invalid_spec_releases_nothing() {
    let record = PolicyRecord {
        managed: managing().take_managed(),
        ..PolicyRecord::default()
    };
    let mut entry = invalid_entry(clearing(attributes(&[("a", "1")])), record);
    entry.release_unmatched_devices(Some(&selected(&[])), |_| false);
    assert_eq!(entry.needed_record().managed.nodes.len(), 2);
    assert!(!entry.retains());
}

/// A status stores routes only with their devices, so that a record of routes alone would never be durable.
#[test]
fn routes_are_recorded_only_with_a_device() {
    let desired = DesiredSettings {
        exit_node: Some(true),
        ..DesiredSettings::default()
    };
    let (mut entry, index) = (entry(clearing(desired)), DeviceIndex::default());
    assert!(!entry.hold(Some(&selected(&[])), &index));
    assert_eq!(*entry.needed_record().managed, ManagedDevices::default());
    assert!(!entry.hold(Some(&selected(&[0])), &index));
    assert_eq!(entry.needed_record().managed.routes.len(), 2);
    // What is left of a record whose devices are cleared is covered by a status without one.
    let mut needed = ManagedDevices::clone(&entry.needed_record().managed);
    assert!(!ManagedDevices::default().cover(&needed));
    needed.nodes.clear();
    assert!(ManagedDevices::default().cover(&needed));
}
