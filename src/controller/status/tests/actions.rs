//! What a status says of that which is done once, and what it keeps of it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    T0,
    fixtures::{bound, device, key, node, report},
    of_policy, of_tailnet,
};
use crate::{
    api::{TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus, TailscaleTailnetStatus},
    convert,
    plan::{ActionRecords, Field, Hold, Missed, PolicyRecord, Stage},
    tailnet::{ActionDetail, ActionReport, PolicyReport, TailnetReport},
};

fn of(actions: ActionReport, records: ActionRecords) -> TailscaleDevicePolicyStatus {
    let report = PolicyReport {
        actions,
        record: Arc::new(PolicyRecord {
            actions: Arc::new(records),
            ..PolicyRecord::default()
        }),
        ..report(bound(device()))
    };
    of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    )
}

fn action(stage: Stage, held: Option<&Hold>) -> ActionDetail {
    ActionDetail {
        stage,
        node: node("n1"),
        label: "fra-laptop".into(),
        field: Field::ExpireKeyAt,
        held: held.map(ToString::to_string),
    }
}

#[test]
fn each_action_is_reported_with_why_it_is_not_done_and_counted_exactly() {
    let missed = Stage::Missed(Missed::TooLate);
    let status = of(
        ActionReport {
            totals: BTreeMap::from([(Stage::Due, 1), (missed, 40), (Stage::Done, 3)]),
            details: vec![
                action(Stage::Due, Some(&Hold::KeyNeverExpires)),
                action(missed, None),
                action(Stage::Done, None),
            ],
            ..ActionReport::default()
        },
        ActionRecords::default(),
    );
    let reported: Vec<_> = status
        .actions
        .iter()
        .map(|action| action.state.as_str())
        .collect();
    assert_eq!(reported, ["Due", "Missed", "Done"]);
    let message = status.actions[0].message.as_ref().unwrap();
    assert!(
        message.starts_with("held: key expiry is disabled"),
        "{message}"
    );
    assert_eq!(
        status.actions[1].message.as_deref(),
        Some("it could not begin within an hour of the time; the key is not expired")
    );
    let totals = status.action_totals.unwrap();
    let totals = (totals.due, totals.missed, totals.done, totals.scheduled);
    assert_eq!(totals, (Some(1), Some(40), Some(3), None));
    // A missed action is no reason to wait: the manifest may keep its time forever.
    let ready = &status.conditions[0];
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("True", "InSync")
    );
    assert!(
        ready
            .message
            .ends_with("expireKeyAt is missed for 40 devices, as it could not begin within an hour of the time. Write a later time to expire the key."),
        "{}", ready.message
    );
}

#[test]
fn a_clock_that_is_wrong_is_reported_on_the_policy_and_on_the_tailnet() {
    let clock_skew = Some(jiff::SignedDuration::from_hours(24 * 20));
    let report = ActionReport {
        clock_skew,
        ..ActionReport::default()
    };
    let policy = of(report, ActionRecords::default());
    let report = TailnetReport {
        devices: Some(3),
        clock_skew,
        ..TailnetReport::default()
    };
    let tailnet = of_tailnet(&TailscaleTailnetStatus::default(), &report, 1, T0);
    for ready in [&policy.conditions[0], &tailnet.conditions[0]] {
        assert_eq!(ready.type_, "Ready");
        let reported = "the controller is 20 days ahead of the Tailscale API's";
        assert!(ready.message.contains(reported), "{}", ready.message);
    }
}

#[test]
fn one_shot_actions_are_recorded_and_read_back_unchanged() {
    let mut records = ActionRecords::default();
    let at = "2026-12-01T18:00:00Z".parse().unwrap();
    let before = "2027-01-02T03:04:05.678Z".parse().unwrap();
    for (id, before) in [("n1", Some(before)), ("n2", None), ("n3", None)] {
        records.begin_expiry(at, &node(id), before);
    }
    records.finish_expiry(at, &node("n3"));
    records.expiries.get_mut(&at).unwrap().missed_reported = true;
    records.begin_deletion(&node("n4"), "old".into(), T0);
    records.deletions.get_mut(&node("n4")).unwrap().done = true;
    let status = of(ActionReport::default(), records.clone());
    let kept = serde_json::to_value(&status).unwrap();
    assert_eq!(
        kept["actionRecords"]["keyExpiries"][0]["started"][0],
        serde_json::json!({"nodeId": "n1", "expiresBefore": "2027-01-02T03:04:05.678Z"})
    );
    let status: TailscaleDevicePolicyStatus = serde_json::from_value(kept).unwrap();
    let spec = TailscaleDevicePolicySpec::default();
    let parsed = convert::policy(key("a"), String::new(), 1, T0, &spec, Some(&status));
    assert_eq!(*parsed.record.actions, records);
}
