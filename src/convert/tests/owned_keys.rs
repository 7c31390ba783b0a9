//! Owned keys survive the way through a status.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::{collection, prelude::*};

use crate::{
    api::TailscaleDevicePolicyStatus,
    convert,
    model::{AttributeKey, Device, NodeId},
    plan::{
        Capacity, DeviceIndex, OwnedKeys, OwnedRecord,
        tests::{cases, scenes::plain_device},
    },
};

const UID: &str = "8f6a2f0e-6d7a-4f0f-9a3e-0d7b6c1f2a34";

fn key(number: usize) -> AttributeKey {
    format!("custom:key{number}").parse().unwrap()
}

/// An id as long as a real one.
fn id(number: usize) -> NodeId {
    format!("n{number:09}kTS11CNTRL").parse().unwrap()
}

fn created(number: usize) -> Timestamp {
    let seconds = i64::try_from(number).unwrap();
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
}

fn device(number: usize) -> Device {
    Device {
        node_id: id(number),
        created: Some(created(number)),
        ..plain_device()
    }
}

fn index(numbers: impl IntoIterator<Item = usize>) -> DeviceIndex {
    DeviceIndex::new(numbers.into_iter().map(device))
}

fn owned(groups: &[(&[usize], Vec<usize>)]) -> OwnedKeys {
    let mut owned = OwnedKeys::default();
    for (keys, nodes) in groups {
        for node in nodes {
            owned.add(&id(*node), keys.iter().map(|it| key(*it)));
        }
    }
    owned
}

/// The keys after a round trip through the JSON of a status.
fn through_text(record: &OwnedRecord) -> OwnedKeys {
    let status = TailscaleDevicePolicyStatus {
        attribute_record: record.to_status(UID, 0),
        ..TailscaleDevicePolicyStatus::default()
    };
    let text = serde_json::to_string(&status).unwrap();
    OwnedKeys::of_status(&serde_json::from_str(&text).unwrap(), UID)
}

fn met(record: &OwnedRecord, index: &DeviceIndex) -> OwnedKeys {
    let mut read = through_text(record);
    read.meet_all(index);
    read.forget_record();
    read
}

fn text_len(record: &OwnedRecord) -> usize {
    serde_json::to_string(&record.to_status(UID, 0))
        .unwrap()
        .len()
}

/// A capacity with which everything goes into a digest.
fn digests() -> Capacity {
    Capacity {
        lists: 0,
        few: 0,
        ..Capacity::default()
    }
}

#[test]
fn ten_thousand_devices_fit_and_are_distinguished() {
    let all = index(0..10_000);
    for share in [1, 2, 7, 40, 3000] {
        let members: Vec<usize> = (0..10_000).filter(|number| number % share == 0).collect();
        let halves = members.split_at(members.len() / 3);
        let keys = owned(&[(&[0, 1], halves.0.to_vec()), (&[1], halves.1.to_vec())]);
        let (record, left_out) = OwnedRecord::of(&keys, &all, Capacity::default());
        assert!(left_out.is_empty());
        assert!(text_len(&record) < 10 << 10, "{} bytes", text_len(&record));
        assert!(record.says(&keys, &all));
        assert_eq!(met(&record, &all), keys);
        // Newer devices are in no group.
        let newer = index(10_000..13_000);
        let through = through_text(&record);
        assert!(newer.devices().all(|device| through.at(device).is_empty()));
    }
}

#[test]
fn never_listed_device_rarely_gets_a_number() {
    // Older than the newest device, and not listed when the record was made.
    let strangers: BTreeSet<usize> = (0..3000).filter(|number| number % 3 == 1).collect();
    let all = index((0..3000).filter(|number| !strangers.contains(number)));
    let members: Vec<usize> = (0..3000).filter(|number| number % 3 == 0).collect();
    let (record, _) = OwnedRecord::of(&owned(&[(&[0], members)]), &all, Capacity::default());
    let read = through_text(&record);
    let mistaken = strangers
        .iter()
        .filter(|it| !read.at(&device(**it)).is_empty());
    assert_eq!(mistaken.count(), 0);
}

#[test]
fn few_devices_are_listed_and_large_groups_are_in_a_digest() {
    let all = index(0..2000);
    let keys = owned(&[(&[0, 1], vec![3, 5]), (&[1], (10..2000).collect())]);
    let (record, _) = OwnedRecord::of(&keys, &all, Capacity::default());
    assert_eq!(record.groups.len(), 1);
    assert_eq!(record.numbered.len(), 1);
    assert_eq!(met(&record, &all), keys);
    let few = owned(&[(&[0, 1], (0..100).collect())]);
    let (record, _) = OwnedRecord::of(&few, &all, Capacity::default());
    assert!(record.numbers.is_none());
    assert_eq!(met(&record, &all), few);
}

#[test]
fn devices_that_do_not_fit_are_left_out_and_returned() {
    let all = index(0..10_000);
    // More groups than three bits can number: the smallest are left out.
    let groups: Vec<Vec<usize>> = (0..9)
        .map(|group| {
            (0..10_000)
                .filter(|it| it % 10 == group || (it % 10 == 9 && group == 0))
                .collect()
        })
        .collect();
    let mut keys = OwnedKeys::default();
    for (group, nodes) in groups.iter().enumerate() {
        for node in nodes {
            keys.add(&id(*node), [key(group)]);
        }
    }
    let (record, left_out) = OwnedRecord::of(&keys, &all, Capacity::default());
    assert_eq!(record.numbered.len(), 7);
    assert_eq!(left_out.len(), 2000);
    let read = met(&record, &all);
    assert!(left_out.iter().all(|id| read.known_at(id).is_none()));
    assert_eq!(read.nodes().count(), 8000);
    // More devices than the capacity allows.
    let none = OwnedRecord::of(
        &owned(&[(&[0], (0..10_000).collect())]),
        &all,
        Capacity {
            bits: 9000,
            ..Capacity::default()
        },
    );
    assert_eq!((none.0.is_empty(), none.1.len()), (true, 10_000));
}

#[test]
fn record_of_another_object_or_tailnet_is_ignored() {
    let all = index(0..3);
    for capacity in [Capacity::default(), digests()] {
        let (record, _) = OwnedRecord::of(&owned(&[(&[0], vec![1])]), &all, capacity);
        let other = Device {
            name: "name-0.tail2.ts.net".to_owned(),
            ..device(1)
        };
        assert!(!through_text(&record).at(&device(1)).is_empty());
        assert!(through_text(&record).at(&other).is_empty());
        let status = TailscaleDevicePolicyStatus {
            attribute_record: record.to_status("restored", 0),
            ..TailscaleDevicePolicyStatus::default()
        };
        assert!(OwnedKeys::of_status(&status, UID).is_empty());
    }
}

#[test]
fn keys_without_devices_count_for_bound_and_released_devices() {
    let managed = crate::api::RecordedDevices {
        node_ids: vec![id(2).to_string()],
        ..crate::api::RecordedDevices::default()
    };
    let status = |node_id: Option<NodeId>, managed| TailscaleDevicePolicyStatus {
        node_id: node_id.map(|id| id.to_string()),
        managed_devices: managed,
        owned_attributes: vec![key(0).to_string()],
        ..TailscaleDevicePolicyStatus::default()
    };
    let of = |status| {
        let mut read = OwnedKeys::of_status(&status, UID);
        read.meet_all(&index(0..4));
        read
    };
    assert_eq!(of(status(Some(id(1)), None)), owned(&[(&[0], vec![1])]));
    assert_eq!(of(status(None, Some(managed))), owned(&[(&[0], vec![2])]));
    assert!(of(status(None, None)).is_empty());
}

#[test]
fn damaged_digest_is_ignored() {
    let all = index(0..50);
    let (record, _) = OwnedRecord::of(&owned(&[(&[0], (0..40).collect())]), &all, digests());
    let whole = record.to_status(UID, 0).unwrap();
    for (bits, table) in [
        (Some(0), whole.digest.clone().unwrap().table),
        (Some(99), whole.digest.clone().unwrap().table),
        (Some(32), Some("AA".to_owned())),
        (Some(32), Some("no base64!".to_owned())),
        (None, None),
    ] {
        let mut edited = whole.clone();
        let digest = edited.digest.as_mut().unwrap();
        (digest.bits, digest.table) = (bits, table);
        let status = TailscaleDevicePolicyStatus {
            attribute_record: Some(edited),
            ..TailscaleDevicePolicyStatus::default()
        };
        assert!(OwnedKeys::of_status(&status, UID).is_empty());
    }
}

/// The index of the key set of some devices, other devices, and the devices that are listed later.
type Case = (BTreeMap<usize, usize>, BTreeSet<usize>, BTreeSet<usize>);

fn case() -> impl Strategy<Value = Case> {
    let assigned = collection::btree_map(0..60_usize, 0..4_usize, 0..60);
    let others = collection::btree_set(0..60_usize, 0..30);
    let later = collection::btree_set(0..90_usize, 0..60);
    (assigned, others, later)
}

proptest! {
    #![proptest_config(cases::cases(256))]

    #[test]
    fn record_restores_the_keys_of_each_device(
        (assigned, others, later) in case(),
        lists in prop_oneof![Just(0_usize), Just(300), Just(4096)],
        few in prop_oneof![Just(0_usize), Just(120)],
    ) {
        let sets: [&[usize]; 4] = [&[0], &[1], &[0, 1], &[0, 1, 2]];
        let mut keys = OwnedKeys::default();
        for (node, set) in &assigned {
            keys.add(&id(*node), sets[*set].iter().map(|it| key(*it)));
        }
        let then = index(assigned.keys().chain(&others).copied().collect::<BTreeSet<_>>());
        let capacity = Capacity { lists, few, ..Capacity::default() };
        let (record, left_out) = OwnedRecord::of(&keys, &then, capacity);
        prop_assert!(left_out.is_empty());
        // Some devices are gone, and others have joined, created after all of the earlier ones.
        let joined = later.iter().map(|number| if then.get(&id(*number)).is_some() { *number } else { number + 1000 });
        let now = index(joined);
        let read = met(&record, &now);
        for device in now.devices() {
            prop_assert_eq!(read.known_at(&device.node_id), keys.known_at(&device.node_id));
        }
        prop_assert_eq!(&met(&record, &then), &keys);
        // One by one, after a first list that lacks some.
        let mut read = through_text(&record);
        read.meet_all(&index(later.iter().copied().filter(|it| then.get(&id(*it)).is_some())));
        for device in then.devices() {
            read.meet(device);
        }
        read.forget_record();
        prop_assert_eq!(&read, &keys);
    }
}

#[test]
fn policy_moved_to_another_tailnet_owns_nothing_and_is_not_bound_there() {
    let record = OwnedRecord::of(
        &owned(&[(&[0], vec![1])]),
        &index(0..2),
        Capacity::default(),
    );
    let status = TailscaleDevicePolicyStatus {
        tailnet: Some("default".to_owned()),
        node_id: Some(id(1).to_string()),
        node_owner: Some("tagged".to_owned()),
        bound_as: Some("hostname host".to_owned()),
        attribute_record: record.0.to_status(UID, 0),
        ..TailscaleDevicePolicyStatus::default()
    };
    let record = |spec: serde_json::Value| {
        let key = crate::plan::PolicyKey::new("network", "one");
        let spec = serde_json::from_value(spec).unwrap();
        let created = Timestamp::UNIX_EPOCH;
        convert::policy(key, UID.to_owned(), 1, created, &spec, Some(&status)).record
    };
    let device = serde_json::json!({"hostname": "host"});
    let same = record(serde_json::json!({"device": device}));
    assert!(!same.owned.is_empty() && same.bound.is_some());
    let same = record(serde_json::json!({"device": device, "tailnetRef": {"name": "default"}}));
    assert!(!same.owned.is_empty() && same.bound.is_some());
    let other = record(serde_json::json!({"device": device, "tailnetRef": {"name": "other"}}));
    assert!(other.owned.is_empty() && other.bound.is_none());
}
