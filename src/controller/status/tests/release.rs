//! The status of devices that a policy has released, and the record of the devices that it manages.

use std::sync::Arc;

use super::{
    T0,
    fixtures::{bound, clearing, device, key, node, one_of_many, report},
    of_policy, status_of,
};
use crate::{
    api::{TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus},
    convert,
    model::{Route, RouteSet},
    plan::{Hold, MAX_MANAGED, ManagedDevices, ManagedSettings},
    tailnet::{PolicyReport, State},
};

#[test]
fn policy_is_not_done_while_a_released_device_is_not_cleared() {
    let of = |clearing, state| {
        let report = PolicyReport {
            clearing: Some(clearing),
            ..report(state)
        };
        of_policy(
            &TailscaleDevicePolicyStatus::default(),
            &report,
            "default",
            T0,
        )
    };
    let waits = of(
        clearing(Some("fra (n1): the server failed (REQ-1)")),
        bound(device()),
    );
    let ready = &waits.conditions[0];
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Clearing")
    );
    assert_eq!(
        ready.message,
        "The controller must still clear one released device. fra (n1): the server failed (REQ-1)"
    );
    assert_eq!(status_of(&waits.conditions, "Reconciling"), "True");
    assert_eq!(status_of(&waits.conditions, "InSync"), "False");
    assert_eq!(
        (waits.matched_devices, waits.pending_total),
        (Some(1), Some(1))
    );
    assert_eq!(waits.pending[0].reason, "released");

    // Errors of the managed devices come first.
    let held = one_of_many(Vec::new(), Some(Hold::NameTaken("db (n9)".into())));
    let held = of(clearing(None), bound(held));
    assert_eq!(held.conditions[0].reason, "NameTaken");
    assert_eq!((held.pending.len(), held.pending_total), (2, Some(2)));

    let deleting = of(clearing(None), State::Deleting(None));
    assert_eq!(
        deleting.conditions[0].message,
        "The policy is being deleted. The controller must still clear one released device."
    );
    assert_eq!(
        (deleting.matched_devices, deleting.in_sync_devices),
        (Some(1), Some(0))
    );
}

#[test]
fn managed_devices_are_read_as_they_were_written() {
    let mut report = report(bound(device()));
    let settings = ManagedSettings {
        keys: ["custom:a".parse().unwrap()].into(),
        routes: Route::exit_node(),
    };
    Arc::make_mut(&mut report.record).managed = Arc::new(ManagedDevices {
        nodes: [node("n1")].into(),
        routes: ["10.0.0.0/16".parse().unwrap()].into(),
        partly: [(node("n1"), RouteSet::new())].into_iter().collect(),
        released: [(settings, [node("n2"), node("n3")].into())].into(),
    });
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    );
    let created = jiff::Timestamp::UNIX_EPOCH;
    let spec = TailscaleDevicePolicySpec::default();
    let read = convert::policy(key("a"), String::new(), 1, created, &spec, Some(&status));
    assert_eq!(read.record, *report.record);
}

/// The API server takes requests of up to 3 MiB, etcd keeps objects of up to 1.5 MiB.
#[test]
fn maximum_number_of_managed_devices_fits_into_an_object() {
    let ids = (0..MAX_MANAGED).map(|number| node(&format!("n{number:012}CNTRL")));
    let mut report = report(bound(device()));
    Arc::make_mut(&mut report.record).managed = Arc::new(ManagedDevices {
        nodes: ids.clone().collect(),
        partly: ids.map(|id| (id, RouteSet::new())).collect(),
        ..ManagedDevices::default()
    });
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    );
    let size = serde_json::to_string(&status).unwrap().len();
    println!("{size} bytes");
    assert!(size < 512 * 1024, "{size} bytes");
}
