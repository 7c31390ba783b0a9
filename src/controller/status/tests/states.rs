//! Every state that a policy can be in, and what must stand in its status.

use super::fixtures::{
    bound, device, difference, failure, forbidden, key, limit_hold, many, node, one_of_many,
    plan_hash, unbound,
};
use crate::{
    api::Reason,
    model::{DeviceField, ListSetting, ValueKind},
    plan::{AttributeType, Binding, Conflict, ConflictKind, Disruption, Field, Hold, Owner},
    tailnet::{DeviceReport, Retry, SelectorReport, State, Successor},
};

/// A state, and what must stand in its status: Ready, its reason, what stands beside it, `InSync`.
pub(super) type Case = (State, [&'static str; 4]);

pub(super) fn states() -> Vec<Case> {
    let lost = Conflict {
        is_named: true,
        field: Field::List(ListSetting::Tags),
        declared: "tag:web".to_owned(),
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

pub(super) fn unbound_states() -> [Case; 6] {
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
    let unknown_owner = Binding::Unreadable {
        node: node("n2"),
        fields: [DeviceField::Tags].into_iter().collect(),
    };
    let successor = Successor {
        node: node("n2"),
        can_be_approved: true,
    };
    [
        (
            bound(DeviceReport {
                successor: Some(successor),
                ..device()
            }),
            ["False", "Superseded", "Reconciling", "True"],
        ),
        (
            unbound(unknown_owner),
            ["False", "DeviceUnreadable", "Reconciling", "Unknown"],
        ),
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

pub(super) fn unfinished_states() -> [Case; 18] {
    let held = |hold| {
        bound(DeviceReport {
            differences: vec![difference(Some(hold))],
            ..device()
        })
    };
    let failed = |reason, retry| {
        bound(DeviceReport {
            differences: vec![difference(None)],
            failures: vec![(Some(Field::List(ListSetting::Tags)), failure(reason, retry))],
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
            held(Hold::Unreadable([DeviceField::Tags].into_iter().collect())),
            ["False", "DeviceUnreadable", "Reconciling", "Unknown"],
        ),
        (
            held(Hold::LockedOut("signature is missing".into())),
            ["False", "NotEffective", "Reconciling", "False"],
        ),
        (
            held(Hold::Protected),
            ["False", "Protected", "Stalled", "False"],
        ),
        (
            held(Hold::NotAllowed(forbidden().suggested_rule)),
            ["False", "NotAllowed", "Stalled", "False"],
        ),
        (
            held(Hold::Approval(Some(plan_hash()))),
            ["False", "AwaitingApproval", "Reconciling", "False"],
        ),
        (
            held(limit_hold()),
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

pub(super) fn fleet_states() -> [Case; 9] {
    let failing = || {
        one_of_many(
            vec![(
                Some(Field::List(ListSetting::Tags)),
                failure(Reason::ApiError, Retry::Later),
            )],
            None,
        )
    };
    let expired = Hold::Disruption(Disruption::ExpiredKey);
    let lost = Conflict {
        is_named: true,
        field: Field::List(ListSetting::Tags),
        declared: "tag:web".to_owned(),
        overridden: key("b"),
        owner: key("a"),
        kind: ConflictKind::Field,
    };
    let approval = Hold::Approval(Some(plan_hash()));
    let limit = limit_hold();
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
