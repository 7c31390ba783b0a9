//! A record is read from a status as it was written.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use crate::{
    api::{TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus},
    convert::{policy, write_record},
    model::{NodeId, PolicyField, Route, RouteSet},
    plan::{
        ActionRecords, Bound, Capacity, DeviceIndex, KeyExpiries, ManagedDevices, ManagedFields,
        ManagedSettings, OwnedKeys, OwnedRecord, Owner, PolicyKey, PolicyRecord, ReleasedFields,
        Rivals, tests::scenes::plain_device,
    },
};

const UID: &str = "uid";

fn id(number: u8) -> NodeId {
    format!("n{number}CNTRL").parse().unwrap()
}

fn actions() -> ActionRecords {
    let at: Timestamp = "2026-12-01T18:00:00Z".parse().unwrap();
    let before = "2027-01-02T03:04:05.678Z".parse().unwrap();
    let mut actions = ActionRecords::default();
    actions.begin_expiry(at, &id(1), Some(before));
    actions.begin_expiry(at, &id(2), None);
    actions.finish_expiry(at, &id(2));
    actions.begin_deletion(&id(3), "old".into(), at);
    actions
}

fn managed() -> ManagedDevices {
    let settings = ManagedSettings {
        keys: ["custom:a".parse().unwrap()].into(),
        routes: Route::exit_node(),
    };
    ManagedDevices {
        nodes: [id(1)].into(),
        routes: ["10.0.0.0/16".parse().unwrap()].into(),
        partly: [(id(1), RouteSet::new())].into_iter().collect(),
        released: [(settings, [id(2), id(3)].into())].into(),
    }
}

#[test]
fn whole_record_is_read_as_it_was_written() {
    let device = plain_device();
    let index = DeviceIndex::new([device.clone()]);
    let keys: BTreeSet<_> = ["custom:a".parse().unwrap()].into();
    let expiry = "2027-01-01T00:00:00Z".parse().unwrap();
    let mut record = PolicyRecord {
        bound: Some(Bound {
            node: device.node_id.clone(),
            owner: Owner::of(&device),
            named: "hostname fra".to_owned(),
        }),
        rivals: Some(Arc::new(Rivals {
            named: "hostname ber".to_owned(),
            nodes: [id(4), id(5)].into(),
        })),
        owned: Arc::new(OwnedKeys::on(&device.node_id, keys)),
        key_expiries: KeyExpiries::recorded([("custom:a".parse().unwrap(), expiry)].into()),
        fields: ManagedFields {
            fields: [PolicyField::Tags, PolicyField::ExitNode].into(),
            released: Some(ReleasedFields {
                generation: 7,
                fields: [PolicyField::EnabledRoutes].into(),
                devices: 3,
            }),
        },
        handled: Some("now".to_owned()),
        approvals_used: 2,
        approved: Some("0011223344556677".parse().unwrap()),
        held: None,
        managed: Arc::new(managed()),
        actions: Arc::new(actions()),
    };
    let (owned, left_out) = OwnedRecord::of(&record.owned, &index, Capacity::default());
    assert!(left_out.is_empty());

    let mut status = TailscaleDevicePolicyStatus::default();
    write_record(&mut status, &record, &owned, UID, 0);
    let status: TailscaleDevicePolicyStatus =
        serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();

    let key = PolicyKey::new("network", "fra");
    let spec = TailscaleDevicePolicySpec::default();
    let created = Timestamp::UNIX_EPOCH;
    let read = policy(key, UID.to_owned(), 1, created, &spec, Some(&status)).record;
    assert_eq!(read.met(&index).owned.at(&device), record.owned.at(&device));
    record.owned = Arc::clone(&read.owned);
    assert_eq!(read, record);
}
