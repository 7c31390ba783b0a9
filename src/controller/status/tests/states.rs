//! Every state that a policy can be in, and what must stand in its status.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    api::Reason,
    model::{NodeId, Route, ValueKind},
    plan::{
        ApprovedOn, AttributeType, Binding, Bound, Change, Conflict, ConflictKind, Difference,
        Disruption, Field, Forbidden, Hold, Mode, Owner, PlanHash, PolicyKey, PolicyRecord, Why,
    },
    tailnet::{
        ActionReport, ClearReport, DeviceReport, Failure, HeldPlan, PolicyReport, Retry,
        SelectorReport, State,
    },
};

pub(in crate::controller) const T0: Timestamp = Timestamp::constant(1_800_000_000, 0);
pub(in crate::controller) const T1: Timestamp = Timestamp::constant(1_800_000_060, 0);

pub(in crate::controller) fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

pub(in crate::controller) fn key(name: &str) -> PolicyKey {
    PolicyKey {
        namespace: "network".into(),
        name: name.into(),
    }
}

pub(in crate::controller) fn failure(reason: Reason, retry: Retry) -> Failure {
    let message = "POST /device/n1/tags answered 400 (REQ-1)".into();
    Failure {
        reason,
        message,
        retry,
        unknown_outcome: false,
    }
}

pub(in crate::controller) fn difference(hold: Option<Hold>) -> Difference {
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

pub(in crate::controller) fn device() -> DeviceReport {
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

pub(in crate::controller) fn report(state: State) -> PolicyReport {
    let bound = Bound {
        node: node("n1"),
        owner: Owner::Tagged,
        named: "hostname fra-router".into(),
    };
    PolicyReport {
        within: None,
        uid: String::new(),
        generation: 3,
        record: PolicyRecord {
            bound: Some(bound),
            ..PolicyRecord::default()
        },
        owned: Arc::default(),
        unrecorded: 0,
        changed_at: None,
        mode: Mode::Enforce,
        held: held_plan(&state),
        approval_errors: Vec::new(),
        clearing: None,
        actions: ActionReport::default(),
        state,
    }
}

/// What is held for an approval in a state, as an engine would freeze it.
fn held_plan(state: &State) -> Option<HeldPlan> {
    let (devices, differences) = match state {
        State::Bound(device) => (1, &device.differences),
        State::Selector(fleet) => (fleet.held, &fleet.differences),
        _ => return None,
    };
    let mut holds = differences.iter().filter_map(|d| d.hold.as_ref());
    let on = holds.find_map(ApprovedOn::releases)?;
    Some(HeldPlan {
        hash: plan_hash(),
        on,
        changes: devices,
        open: devices,
        devices,
        limit: (on == ApprovedOn::Tailnet).then_some(5),
        share: None,
    })
}

pub(in crate::controller) fn plan_hash() -> PlanHash {
    "3f2a9c0b7d41e856".parse().unwrap()
}

pub(in crate::controller) fn bound(report: DeviceReport) -> State {
    State::Bound(Box::new(report))
}

pub(in crate::controller) fn unbound(binding: Binding) -> State {
    State::Unbound {
        named: "hostname fra-router".into(),
        binding,
    }
}

pub(in crate::controller) fn forbidden() -> Forbidden {
    let error = "no rule of allowedPolicies allows this field".to_owned();
    Forbidden {
        errors: vec![("spec.tags".to_owned(), error)],
        line: "allowedPolicies: [{namespaces: {names: [network]}, fields: [tags]}]".to_owned(),
        selector_errors: false,
    }
}

/// A state, and what must stand in its status: Ready, its reason, what stands beside it, `InSync`.
pub(in crate::controller) type Case = (State, [&'static str; 4]);

pub(in crate::controller) fn states() -> Vec<Case> {
    let lost = Conflict {
        is_named: true,
        field: Field::Tags,
        overridden: key("b"),
        owner: key("a"),
        kind: ConflictKind::Field,
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
        (
            State::NotAllowed(Box::new(forbidden())),
            ["False", "NotAllowed", "Stalled", "Unknown"],
        ),
    ];
    cases.extend(unbound_states());
    cases.extend(unfinished_states());
    cases.extend(fleet_states());
    cases.extend(clear_states());
    cases
}

pub(in crate::controller) fn unbound_states() -> [Case; 4] {
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

pub(in crate::controller) fn unfinished_states() -> [Case; 16] {
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
            held(Hold::Protected),
            ["False", "Protected", "Stalled", "False"],
        ),
        (
            held(Hold::NotAllowed(forbidden().line)),
            ["False", "NotAllowed", "Stalled", "False"],
        ),
        (
            held(Hold::Approval(Some(plan_hash()))),
            ["False", "AwaitingApproval", "Reconciling", "False"],
        ),
        (
            held(Hold::Limit(Some(plan_hash()))),
            ["False", "LimitHeld", "Reconciling", "False"],
        ),
        (
            held(Hold::AddressInUse("db (n9)".into())),
            ["False", "AddressInUse", "Reconciling", "False"],
        ),
        (
            held(Hold::AddressSwap(vec!["db (n9)".into()])),
            ["False", "AddressSwap", "Stalled", "False"],
        ),
        (
            held(Hold::AttributeConflict {
                attribute_type: AttributeType {
                    key: "custom:tier".parse().unwrap(),
                    kind: ValueKind::String,
                },
                same_key: true,
                device: "db (n9)".into(),
            }),
            ["False", "AttributeConflict", "Reconciling", "False"],
        ),
        (
            held(Hold::NameTaken("db (n9)".into())),
            ["False", "NameTaken", "Reconciling", "False"],
        ),
        (
            held(Hold::KeyNeverExpires),
            ["False", "ActionHeld", "Reconciling", "False"],
        ),
        (
            held(Hold::TooManyExpiries),
            ["False", "TooManyDevices", "Stalled", "False"],
        ),
        (
            held(Hold::WouldUnselect(key("a"))),
            ["False", "SelectorFeedback", "Stalled", "False"],
        ),
        (
            bound(DeviceReport {
                differences: vec![difference(None)],
                ..device()
            }),
            ["False", "DependencyNotReady", "Reconciling", "False"],
        ),
        (
            failed(Reason::ApiError, Retry::Later),
            ["False", "ApiError", "Reconciling", "False"],
        ),
        (
            failed(Reason::Contested, Retry::Later),
            ["False", "Contested", "Reconciling", "False"],
        ),
        (
            failed(Reason::TagsNotPermitted, Retry::Never),
            ["False", "TagsNotPermitted", "Stalled", "False"],
        ),
    ]
}

/// A device of many: it fails, is held, or is in sync.
pub(in crate::controller) fn one_of_many(
    failures: Vec<(Option<Field>, Failure)>,
    hold: Option<Hold>,
) -> DeviceReport {
    let differs = !failures.is_empty() || hold.is_some();
    DeviceReport {
        differences: differs.then(|| difference(hold)).into_iter().collect(),
        failures,
        ..device()
    }
}

/// `matched` devices, of which one is as given and the others are in sync.
pub(in crate::controller) fn many(matched: usize, one: DeviceReport) -> SelectorReport {
    let differences = one.differences.clone();
    SelectorReport {
        matched,
        in_sync: matched - differences.len(),
        failed: usize::from(!one.failures.is_empty()),
        held: differences.iter().filter(|d| d.hold.is_some()).count(),
        out_of_sync: differences.len(),
        differences,
        details: vec![one],
        ..SelectorReport::default()
    }
}

pub(in crate::controller) fn fleet_states() -> [Case; 9] {
    let failing = || {
        one_of_many(
            vec![(Some(Field::Tags), failure(Reason::ApiError, Retry::Later))],
            None,
        )
    };
    let expired = Hold::Disruption(Disruption::ExpiredKey);
    let lost = Conflict {
        is_named: true,
        field: Field::Tags,
        overridden: key("b"),
        owner: key("a"),
        kind: ConflictKind::Field,
    };
    let approval = Hold::Approval(Some(plan_hash()));
    let limit = Hold::Limit(Some(plan_hash()));
    let conflicted = DeviceReport {
        conflicts: vec![lost],
        ..device()
    };
    let cases = [
        (SelectorReport::default(), ["True", "NoDevices", "", "True"]),
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
            SelectorReport {
                held: 1000,
                out_of_sync: 1000,
                in_sync: 0,
                ..many(1000, one_of_many(Vec::new(), Some(approval)))
            },
            ["False", "AwaitingApproval", "Reconciling", "False"],
        ),
        (
            SelectorReport {
                held: 1000,
                out_of_sync: 1000,
                in_sync: 0,
                ..many(1000, one_of_many(Vec::new(), Some(limit)))
            },
            ["False", "LimitHeld", "Reconciling", "False"],
        ),
        (
            SelectorReport {
                conflicted: 1,
                ..many(1000, conflicted)
            },
            ["False", "Conflicted", "Stalled", "False"],
        ),
        (
            SelectorReport {
                working: 10,
                unread: 10,
                ..many(1000, device())
            },
            ["Unknown", "Progressing", "Reconciling", "Unknown"],
        ),
    ];
    cases.map(|(report, expected)| (State::Selector(Box::new(report)), expected))
}

fn clear_states() -> [Case; 2] {
    [
        (
            State::Deleting(None),
            ["False", "Clearing", "Reconciling", "Unknown"],
        ),
        (
            State::TooMany(12_000),
            ["False", "TooManyDevices", "Stalled", "Unknown"],
        ),
    ]
}

/// The settings that are still to be cleared on a device that a policy has released.
pub(in crate::controller) fn clearing(trouble: Option<&str>) -> ClearReport {
    let difference = Difference {
        change: Change::ExitNode {
            before: Route::exit_node(),
            after: false,
        },
        why: Why::Released,
        ..difference(None)
    };
    ClearReport {
        left: 1,
        different: 1,
        differences: vec![difference],
        blocker: trouble.map(str::to_owned),
    }
}
