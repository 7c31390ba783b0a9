//! Every state that a policy can be in, as its status tells it.

mod actions;
pub(in crate::controller) mod fixtures;
mod records;
mod release;
mod states;
mod tailnet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{Reason, TailscaleDevicePolicyStatus, TailscaleTailnetStatus},
    model::{ListSetting, Route, RouteSet, SettingValue},
    plan::{
        Binding, Change, Conflict, ConflictKind, Difference, Expression, Field, Hold, ListChange,
        Mode, Suspender, tests::scenes::plain_device as nas,
    },
    tailnet::{
        DeviceReport, Failure, LimitedPolicy, PolicyReport, RecentChanges, Retry, SelectorErrors,
        SelectorReport, State, TailnetReport,
    },
    tailscale::Ability,
};

use super::{of_policy, of_tailnet};
use fixtures::*;
use states::*;

#[test]
fn selector_status_has_its_counts_and_the_first_failure_with_its_request_id() {
    let failing = one_of_many(
        vec![(
            Some(Field::List(ListSetting::Tags)),
            failure(Reason::ApiError, Retry::Later),
        )],
        None,
    );
    let state = State::Selector(Box::new(many(1000, failing)));
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

#[test]
fn devices_on_which_an_expression_fails_are_reported() {
    let expression: Expression = "device.lastSeen < '2026'".parse().unwrap();
    let report_of = |count| SelectorReport {
        selector_errors: Some(SelectorErrors {
            count,
            node: node("n7"),
            label: "nas".into(),
            error: expression.holds(&nas()).unwrap_err(),
        }),
        ..many(3, device())
    };
    let state = State::Selector(Box::new(report_of(2)));
    let old = TailscaleDevicePolicyStatus::default();
    let status = of_policy(&old, &report(state), "default", T0);
    assert_eq!(
        status.conditions[0].message,
        "All 3 devices are in sync. spec.deviceSelector.expression cannot be evaluated for 2 devices, so that the policy does not target them. The first is nas (n7): line 1, column 8, at «lastSeen < '2026'»: \
         device.lastSeen is absent: test has(device.lastSeen) first."
    );
}

fn message_of(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.map_or(String::new(), |condition| condition.message.clone())
}

fn status_of(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.map_or(String::new(), |condition| condition.status.clone())
}

#[test]
fn a_message_is_one_line_that_people_can_read_whatever_a_device_is_called() {
    let failure = Failure {
        message: format!("fra\u{1b}[2J\n\u{202e}router{}", "x".repeat(5000)),
        ..failure(Reason::ApiError, Retry::Later)
    };
    let old = TailscaleDevicePolicyStatus::default();
    let status = of_policy(&old, &report(State::Unavailable(failure)), "default", T0);
    let message = message_of(&status.conditions, "Ready");
    assert!(
        message.starts_with("fra\\u{1b}[2J\\u{a}\\u{202e}router"),
        "{message}"
    );
    assert!(message.len() <= 1024 && message.ends_with('…'), "{message}");
}

#[test]
fn each_state_has_its_specified_conditions() {
    for (state, [ready, reason, beside, in_sync]) in states() {
        let name = format!("{state:?}");
        let refused = matches!(state, State::Invalid(_) | State::NotAllowed(_));
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
        let accepted = if refused { "False" } else { "True" };
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
fn same_report_again_changes_no_status() {
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
fn suspended_policy_keeps_its_last_in_sync_condition_and_a_new_one_is_ready() {
    let differs = |mode| PolicyReport {
        mode,
        ..report(bound(DeviceReport {
            differences: vec![difference(Some(Hold::Suspended(Suspender::Policy)))],
            ..device()
        }))
    };
    let new = TailscaleDevicePolicyStatus::default();
    let word = |before: &TailscaleDevicePolicyStatus| {
        let status = of_policy(
            before,
            &differs(Mode::Suspended(Suspender::Policy)),
            "default",
            T1,
        );
        assert_eq!(status.pending_total, Some(1));
        assert_eq!(status_of(&status.conditions, "InSync"), "False");
        assert_eq!(status_of(&status.conditions, "Reconciling"), "");
        let again = of_policy(
            &status,
            &differs(Mode::Suspended(Suspender::Policy)),
            "default",
            T1,
        );
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
fn outage_keeps_the_last_observed_state() {
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
fn failure_is_reported_with_its_request_id_and_a_change_of_identity_with_both_nodes() {
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
            "IdentityChanged" => &[
                "n1",
                "n2",
                "eve@example.com",
                "spec.device.nodeId",
                "tailnet.dev/approve: node:n2",
            ],
            "Ambiguous" => &["n1, n2", "spec.device.nodeId"],
            "AwaitingApproval" => {
                &["Annotate the policy with tailnet.dev/approve: plan:3f2a9c0b7d41e856"]
            }
            "LimitHeld" => &[
                "maxChangedDevices of the TailscaleTailnet default allows (5)",
                "annotate the TailscaleTailnet with tailnet.dev/approve: plan:3f2a9c0b7d41e856",
            ],
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
        missing_scopes: [Ability::Routes].into(),
        attributes_interval: std::time::Duration::from_mins(10),
        ..TailnetReport::default()
    };
    let ready = of_tailnet(&TailscaleTailnetStatus::default(), &seen, 1, T0);
    assert_eq!(status_of(&ready.conditions, "Ready"), "True");
    assert_eq!(ready.missing_scopes, ["devices:routes"]);
    assert_eq!(
        message_of(&ready.conditions, "Ready"),
        "The controller can read the tailnet's devices. The credential lacks scopes: for enabledRoutes \
         and exitNode add the scope devices:routes."
    );
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

#[test]
fn held_plan_is_listed_with_its_hash_and_the_errors_of_the_annotation() {
    let hold = Hold::Approval(Some(plan_hash()));
    let report = PolicyReport {
        mode: Mode::Approve,
        approval_errors: vec!["'x' approves nothing".into()],
        ..report(State::Selector(Box::new(many(
            1000,
            one_of_many(Vec::new(), Some(hold)),
        ))))
    };
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    );
    let plan = status.held_plan.unwrap();
    assert_eq!((plan.hash, plan.changes), (plan_hash().to_string(), 1));
    assert_eq!(plan.approve_on, "TailscaleDevicePolicy");
    assert_eq!(status.enforcement.as_deref(), Some("Approve"));
    assert_eq!(status.approval_errors, ["'x' approves nothing"]);
    let message = &status.conditions[0].message;
    let end = "In the annotation, 'x' approves nothing.";
    assert!(message.ends_with(end), "{message}");
    let waits = "it must be approved: annotate the policy with tailnet.dev/approve: plan:";
    assert!(status.pending[0].held.as_ref().unwrap().starts_with(waits));
}

#[test]
fn tailnet_reports_what_its_limit_holds_and_keeps_recorded_changes_until_they_are_loaded() {
    let limited = LimitedPolicy {
        policy: key("laptops"),
        devices: 840,
        hash: Some(plan_hash()),
    };
    let seen = TailnetReport {
        devices: Some(1000),
        limited: vec![limited],
        limited_total: 1,
        recent: Some(vec![RecentChanges {
            since: T0,
            devices: 3,
            namespace: Some("network".to_owned()),
        }]),
        reserved: [
            ("n1CNTRL".parse().unwrap(), Some("network".to_owned())),
            ("n2CNTRL".parse().unwrap(), None),
        ]
        .into(),
        ..TailnetReport::default()
    };
    let status = of_tailnet(&TailscaleTailnetStatus::default(), &seen, 1, T0);
    assert_eq!(status.held[0].policy, "network/laptops");
    assert_eq!((status.held[0].devices, status.held_total), (840, Some(1)));
    assert_eq!(super::recent(&status), seen.recent.clone().unwrap());
    assert_eq!(status.reserved_devices, ["network/n1CNTRL", "n2CNTRL"]);
    assert_eq!(super::reserved(&status), seen.reserved);
    let unknown = TailnetReport {
        recent: None,
        ..seen
    };
    let later = of_tailnet(&status, &unknown, 1, T1);
    assert_eq!(later.recent_changes, status.recent_changes);
}

#[test]
fn devices_that_cannot_be_recorded_are_reported_with_what_to_do() {
    let (state, _) = states().swap_remove(0);
    let report = PolicyReport {
        unrecorded: 7,
        ..report(state)
    };
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    );
    let message = &status.conditions[0].message;
    assert!(
        message.ends_with(
            "The status cannot record 7 of the devices as managed, as they are too many: an attribute that spec.postureAttributes no longer declares stays on them. Write several policies with narrower selectors to have it deleted."
        ),
        "{message}"
    );
    assert_eq!(status.attribute_record.unwrap().unrecorded_devices, Some(7));
}

/// Each value that does not hold is pending with its cause, and the message names all causes.
#[test]
fn every_cause_is_named_the_first_one_decides() {
    let lost = Conflict {
        field: Field::List(ListSetting::Tags),
        declared: "tag:web".to_owned(),
        overridden: key("b"),
        owner: key("a"),
        is_named: true,
        kind: ConflictKind::Field,
    };
    let routes = Difference {
        change: Change::List(ListChange::ExitNode {
            before: RouteSet::new(),
            after: Route::exit_node(),
        }),
        ..difference(Some(Hold::Protected))
    };
    let authorized = Difference {
        change: Change::Setting {
            before: Some(SettingValue::Authorized(false)),
            after: SettingValue::Authorized(true),
        },
        ..difference(None)
    };
    let waits = "it waits for exitNode".to_owned();
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report(State::Bound(Box::new(DeviceReport {
            conflicts: vec![lost],
            waits: vec![(authorized.change.field(), waits)],
            differences: vec![routes, authorized],
            ..device()
        }))),
        "default",
        T0,
    );
    let held: Vec<&str> = status
        .pending
        .iter()
        .map(|it| it.held.as_deref().unwrap())
        .collect();
    assert!(
        held[0].starts_with("no policy may change this device"),
        "{held:?}"
    );
    assert_eq!(
        held[1..],
        ["it waits for exitNode", "overridden by network/a"]
    );
    assert_eq!(status.pending_total, Some(3));
    let ready = &status.conditions[0];
    assert_eq!(ready.reason, "Conflicted");
    let place = |text: &str| ready.message.find(text).expect(&ready.message);
    assert!(place("takes precedence") < place("exitNode: none"));
    assert!(place("exitNode: none") < place("it waits for exitNode"));
}

/// Several devices are held for several reasons: one device of each is named, the most severe first.
#[test]
fn each_reason_of_a_fleet_is_named() {
    let of = |number: usize, hold: Hold| DeviceReport {
        node: node(&format!("n{number}")),
        label: format!("web-{number}"),
        differences: vec![difference(Some(hold))],
        ..device()
    };
    let held = (1..=5).map(|number| of(number, Hold::Approval(None)));
    let details: Vec<DeviceReport> = held.chain([of(6, Hold::Protected)]).collect();
    let differences = details.iter().flat_map(|it| it.differences.clone());
    let report_of = SelectorReport {
        matched: 6,
        held: 6,
        out_of_sync: 6,
        differences: differences.collect(),
        details,
        ..SelectorReport::default()
    };
    let status = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report(State::Selector(Box::new(report_of))),
        "default",
        T0,
    );
    let ready = &status.conditions[0];
    assert_eq!(ready.reason, "Protected");
    let begins = "6 of 6 devices are held: web-6 (n6): keyExpiry";
    assert!(ready.message.starts_with(begins), "{}", ready.message);
    assert!(ready.message.contains("web-1 (n1)"), "{}", ready.message);
    assert!(!ready.message.contains("web-3 (n3)"), "{}", ready.message);
}
