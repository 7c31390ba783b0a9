//! Every state that a policy can be in, as its status tells it.

#[path = "status_records.rs"]
mod records;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{of_policy, of_tailnet};
use crate::{
    api::{Reason, TailscaleDevicePolicyStatus, TailscaleTailnetStatus},
    model::NodeId,
    plan::{
        Binding, Bound, Change, Conflict, Difference, Disruption, Field, Hold, Memory, Mode, Owner,
        PolicyKey, Why,
    },
    tailnet::{DeviceReport, Failure, FleetReport, PolicyReport, Retry, State, TailnetReport},
};

const T0: Timestamp = Timestamp::constant(1_800_000_000, 0);
const T1: Timestamp = Timestamp::constant(1_800_000_060, 0);

fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

fn key(name: &str) -> PolicyKey {
    PolicyKey {
        namespace: "network".into(),
        name: name.into(),
    }
}

fn failure(reason: Reason, retry: Retry) -> Failure {
    let message = "POST /device/n1/tags answered 400 (REQ-1)".into();
    Failure {
        reason,
        message,
        retry,
        unknown_outcome: false,
    }
}

fn difference(hold: Option<Hold>) -> Difference {
    Difference {
        node: node("n1"),
        device: "fra-router".into(),
        change: Change::KeyExpiryDisabled {
            before: true,
            after: false,
        },
        why: Why::Declared,
        owner: key("fra-router"),
        others: Vec::new(),
        hold,
    }
}

fn device() -> DeviceReport {
    DeviceReport {
        node: node("n1"),
        label: "fra-router".into(),
        working: false,
        unread: false,
        differences: Vec::new(),
        conflicts: Vec::new(),
        expired: Vec::new(),
        failures: Vec::new(),
    }
}

fn report(state: State) -> PolicyReport {
    let bound = Bound {
        node: node("n1"),
        owner: Owner::Tagged,
        named: "hostname fra-router".into(),
    };
    PolicyReport {
        generation: 3,
        memory: Memory {
            bound: Some(bound),
            owned_keys: BTreeSet::new(),
            handled: None,
        },
        changed_at: None,
        mode: Mode::Enforce,
        state,
    }
}

fn bound(report: DeviceReport) -> State {
    State::Bound(Box::new(report))
}

fn unbound(binding: Binding) -> State {
    State::Unbound {
        named: "hostname fra-router".into(),
        binding,
    }
}

/// A state, and what must stand in its status: Ready, its reason, what stands beside it, `InSync`.
type Case = (State, [&'static str; 4]);

fn states() -> Vec<Case> {
    let lost = Conflict {
        field: Field::Tags,
        loser: key("b"),
        winner: key("a"),
    };
    let invalid = State::Invalid(vec!["spec.ipv4: no".into(), "spec.tags[0]: no".into()]);
    let rejected = failure(Reason::CredentialRejected, Retry::Later);
    let working = DeviceReport {
        working: true,
        unread: true,
        ..device()
    };
    let mut cases = vec![
        (bound(device()), ["True", "InSync", "", "True"]),
        (
            State::Starting,
            ["Unknown", "NotStarted", "Reconciling", "Unknown"],
        ),
        (
            bound(working),
            ["Unknown", "Progressing", "Reconciling", "Unknown"],
        ),
        (
            bound(DeviceReport {
                conflicts: vec![lost],
                ..device()
            }),
            ["False", "Conflicted", "Stalled", "False"],
        ),
        (
            State::Unavailable(rejected),
            ["False", "CredentialRejected", "Reconciling", "Unknown"],
        ),
        (invalid, ["False", "Invalid", "Stalled", "Unknown"]),
    ];
    cases.extend(unbound_states());
    cases.extend(unfinished_states());
    cases.extend(fleet_states());
    cases
}

fn unbound_states() -> [Case; 4] {
    let changed = Binding::IdentityChanged {
        bound: node("n1"),
        owner: Owner::Tagged,
        found: node("n2"),
        found_owner: Owner::User("eve@example.com".into()),
    };
    let lacks = Binding::Unmet {
        node: node("n1"),
        lacks: "it does not have tag:router".into(),
    };
    let two = Binding::Ambiguous(vec![node("n1"), node("n2")]);
    [
        (
            unbound(Binding::NotFound),
            ["False", "DeviceNotFound", "Reconciling", "Unknown"],
        ),
        (
            unbound(lacks),
            ["False", "DeviceNotFound", "Reconciling", "Unknown"],
        ),
        (
            unbound(two),
            ["False", "Ambiguous", "Reconciling", "Unknown"],
        ),
        (
            unbound(changed),
            ["False", "IdentityChanged", "Reconciling", "Unknown"],
        ),
    ]
}

fn unfinished_states() -> [Case; 7] {
    let held = |hold| {
        bound(DeviceReport {
            differences: vec![difference(Some(hold))],
            ..device()
        })
    };
    let failed = |reason, retry| {
        bound(DeviceReport {
            differences: vec![difference(None)],
            failures: vec![(Some(Field::Tags), failure(reason, retry))],
            ..device()
        })
    };
    let expired = Hold::Disruption(Disruption::ExpiredKey);
    [
        (
            held(expired),
            ["False", "DisruptionHeld", "Reconciling", "False"],
        ),
        (
            held(Hold::AddressInUse("db (n9)".into())),
            ["False", "AddressInUse", "Reconciling", "False"],
        ),
        (
            held(Hold::NameTaken("db (n9)".into())),
            ["False", "NameTaken", "Reconciling", "False"],
        ),
        (
            held(Hold::Feedback(key("a"))),
            ["False", "SelectorFeedback", "Stalled", "False"],
        ),
        (
            bound(DeviceReport {
                differences: vec![difference(None)],
                ..device()
            }),
            ["False", "Waiting", "Reconciling", "False"],
        ),
        (
            failed(Reason::ApiError, Retry::Later),
            ["False", "ApiError", "Reconciling", "False"],
        ),
        (
            failed(Reason::TagsNotPermitted, Retry::Never),
            ["False", "TagsNotPermitted", "Stalled", "False"],
        ),
    ]
}

/// A device of many: that fails, that is held, or that is as declared.
fn one_of_many(failures: Vec<(Option<Field>, Failure)>, hold: Option<Hold>) -> DeviceReport {
    let differs = !failures.is_empty() || hold.is_some();
    DeviceReport {
        differences: differs.then(|| difference(hold)).into_iter().collect(),
        failures,
        ..device()
    }
}

/// `matched` devices, of which one is as given and the others are as declared.
fn many(matched: usize, one: DeviceReport) -> FleetReport {
    let differences = one.differences.clone();
    FleetReport {
        matched,
        in_sync: matched - differences.len(),
        failed: usize::from(!one.failures.is_empty()),
        held: differences.iter().filter(|d| d.hold.is_some()).count(),
        different: differences.len(),
        differences,
        details: vec![one],
        ..FleetReport::default()
    }
}

fn fleet_states() -> [Case; 7] {
    let failing = || {
        one_of_many(
            vec![(Some(Field::Tags), failure(Reason::ApiError, Retry::Later))],
            None,
        )
    };
    let expired = Hold::Disruption(Disruption::ExpiredKey);
    let lost = Conflict {
        field: Field::Tags,
        loser: key("b"),
        winner: key("a"),
    };
    let conflicted = DeviceReport {
        conflicts: vec![lost],
        ..device()
    };
    let cases = [
        (FleetReport::default(), ["True", "NoDevices", "", "True"]),
        (many(1000, device()), ["True", "InSync", "", "True"]),
        (
            many(1000, failing()),
            ["False", "PartiallyApplied", "Reconciling", "False"],
        ),
        (
            many(1, failing()),
            ["False", "ApiError", "Reconciling", "False"],
        ),
        (
            many(1000, one_of_many(Vec::new(), Some(expired))),
            ["False", "DisruptionHeld", "Reconciling", "False"],
        ),
        (
            FleetReport {
                conflicted: 1,
                ..many(1000, conflicted)
            },
            ["False", "Conflicted", "Stalled", "False"],
        ),
        (
            FleetReport {
                working: 10,
                unread: 10,
                ..many(1000, device())
            },
            ["Unknown", "Progressing", "Reconciling", "Unknown"],
        ),
    ];
    cases.map(|(report, expected)| (State::Fleet(Box::new(report)), expected))
}

#[test]
fn a_fleet_tells_its_counts_and_the_first_failure_with_its_request_id() {
    let failing = one_of_many(
        vec![(Some(Field::Tags), failure(Reason::ApiError, Retry::Later))],
        None,
    );
    let state = State::Fleet(Box::new(many(1000, failing)));
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report(state),
        "default",
        T0,
    );
    assert_eq!(
        status.conditions[0].message,
        "1 of 1000 devices failed: fra-router (n1): tags: POST /device/n1/tags answered 400 (REQ-1)"
    );
    assert_eq!(
        (status.matched_devices, status.in_sync_devices),
        (Some(1000), Some(999))
    );
    assert_eq!((status.pending.len(), status.pending_total), (1, Some(1)));
    assert_eq!(status.devices[0].reason.as_deref(), Some("ApiError"));
}

fn status_of(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.map_or(String::new(), |condition| condition.status.clone())
}

#[test]
fn each_state_reads_as_the_contract_says() {
    for (state, [ready, reason, beside, in_sync]) in states() {
        let name = format!("{state:?}");
        let status = of_policy(
            &TailscaleDevicePolicyStatus::default(),
            &report(state),
            "default",
            T0,
        );
        let conditions = &status.conditions;
        assert_eq!(status_of(conditions, "Ready"), ready, "{name}");
        assert_eq!(conditions[0].reason, reason, "{name}");
        assert_eq!(status_of(conditions, "InSync"), in_sync, "{name}");
        for type_ in ["Reconciling", "Stalled"] {
            let expected = if type_ == beside { "True" } else { "" };
            assert_eq!(status_of(conditions, type_), expected, "{type_} of {name}");
        }
        let accepted = if reason == "Invalid" { "False" } else { "True" };
        assert_eq!(status_of(conditions, "Accepted"), accepted, "{name}");
        assert!(
            conditions
                .iter()
                .all(|condition| condition.observed_generation == Some(3)),
            "{name}"
        );
        assert!(
            conditions
                .iter()
                .all(|condition| !condition.message.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn a_second_look_at_the_same_state_changes_nothing() {
    for (state, _) in states() {
        let report = report(state);
        let first = of_policy(
            &TailscaleDevicePolicyStatus::default(),
            &report,
            "default",
            T0,
        );
        assert_eq!(of_policy(&first, &report, "default", T1), first);
    }
}

#[test]
fn the_time_of_a_transition_moves_only_when_the_status_of_the_condition_does() {
    let start = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report(unbound(Binding::NotFound)),
        "default",
        T0,
    );
    let other_reason = of_policy(
        &start,
        &report(unbound(Binding::Ambiguous(vec![node("n1")]))),
        "default",
        T1,
    );
    assert_eq!(other_reason.conditions[0].last_transition_time.0, T0);
    let ready = of_policy(&other_reason, &report(bound(device())), "default", T1);
    assert_eq!(ready.conditions[0].last_transition_time.0, T1);
}

#[test]
fn a_suspended_policy_keeps_its_last_word_and_a_new_one_is_ready() {
    let differs = |mode| PolicyReport {
        mode,
        ..report(bound(DeviceReport {
            differences: vec![difference(Some(Hold::Suspended))],
            ..device()
        }))
    };
    let new = TailscaleDevicePolicyStatus::default();
    let word = |before: &TailscaleDevicePolicyStatus| {
        let status = of_policy(before, &differs(Mode::Suspended), "default", T1);
        assert_eq!(status.pending_total, Some(1));
        assert_eq!(status_of(&status.conditions, "InSync"), "False");
        assert_eq!(status_of(&status.conditions, "Reconciling"), "");
        let again = of_policy(&status, &differs(Mode::Suspended), "default", T1);
        assert_eq!(again, status);
        let stalled = status_of(&status.conditions, "Stalled");
        let ready = &status.conditions[0];
        format!("{} {} {stalled}", ready.status, ready.reason)
    };
    assert_eq!(word(&new), "True Suspended ");
    for (state, expected) in [
        (bound(device()), "True InSync "),
        (State::Starting, "True Suspended "),
        (unbound(Binding::NotFound), "False DeviceNotFound True"),
    ] {
        assert_eq!(
            word(&of_policy(&new, &report(state), "default", T0)),
            expected
        );
    }
}

#[test]
fn a_policy_that_observes_is_ready_with_its_differences_listed() {
    let report = PolicyReport {
        mode: Mode::Observe,
        ..report(bound(DeviceReport {
            differences: vec![difference(Some(Hold::Observed))],
            ..device()
        }))
    };
    let new = TailscaleDevicePolicyStatus::default();
    let status = of_policy(&new, &report, "default", T0);
    assert_eq!(status.conditions[0].reason, "Observed");
    assert_eq!(status_of(&status.conditions, "Ready"), "True");
    assert_eq!(status_of(&status.conditions, "InSync"), "False");
    assert_eq!(status.enforcement.as_deref(), Some("Observe"));
    assert_eq!((status.pending.len(), status.pending_total), (1, Some(1)));
}

#[test]
fn an_outage_leaves_what_was_seen_last() {
    let before = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report(bound(device())),
        "default",
        T0,
    );
    let outage = State::Unavailable(failure(Reason::ApiUnreachable, Retry::Later));
    let during = of_policy(&before, &report(outage), "default", T1);
    assert_eq!(status_of(&during.conditions, "InSync"), "True");
    assert_eq!(during.devices, before.devices);
    assert_eq!(during.node_id, before.node_id);
}

#[test]
fn a_failure_is_told_with_its_request_id_and_a_change_of_identity_with_both_nodes() {
    for (state, [_, reason, ..]) in states() {
        let status = of_policy(
            &TailscaleDevicePolicyStatus::default(),
            &report(state),
            "default",
            T0,
        );
        let message = &status.conditions[0].message;
        let expected: &[&str] = match reason {
            "ApiError" | "TagsNotPermitted" | "CredentialRejected" => &["REQ-1"],
            "IdentityChanged" => &["n1", "n2", "eve@example.com", "spec.device.nodeId"],
            "Ambiguous" => &["n1, n2", "spec.device.nodeId"],
            "DisruptionHeld" => &[
                "allowDisruption: [ExpiredKey]",
                "keyExpiry: Disabled → Enabled",
            ],
            "AddressInUse" | "NameTaken" => &["db (n9)"],
            "Conflicted" => &["tags to network/a"],
            "Invalid" => &["spec.ipv4", "spec.tags[0]"],
            _ => &[],
        };
        for part in expected {
            assert!(
                message.contains(part),
                "{reason}: «{part}» is not in: {message}"
            );
        }
    }
}

#[test]
fn a_tailnet_is_ready_once_its_devices_can_be_read() {
    let seen = TailnetReport {
        failure: None,
        domain: Some("tail1234.ts.net".into()),
        devices: Some(8),
        policies: 6,
        attributes_interval: std::time::Duration::from_mins(10),
    };
    let ready = of_tailnet(&TailscaleTailnetStatus::default(), &seen, 1, T0);
    assert_eq!(status_of(&ready.conditions, "Ready"), "True");
    let outage = TailnetReport {
        failure: Some(failure(Reason::CredentialRejected, Retry::Later)),
        devices: None,
        domain: None,
        ..seen
    };
    let down = of_tailnet(&ready, &outage, 1, T1);
    assert_eq!(status_of(&down.conditions, "Ready"), "False");
    assert_eq!(
        (down.devices, down.tailnet.as_deref()),
        (Some(8), Some("tail1234.ts.net"))
    );
}
