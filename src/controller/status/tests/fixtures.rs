//! Reports to make statuses from.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    api::Reason,
    model::{ChangeLimit, ListSetting, NodeId, Route, RouteSet, SettingValue, TagSet},
    plan::{
        ApprovedOn, Binding, Bound, Change, ChangeKind, Difference, Field, Forbidden, Hold,
        LimitedPlan, ListChange, Mode, Owner, PlanHash, PolicyKey, PolicyRecord, Summary, Why,
    },
    tailnet::{
        ActionReport, ClearReport, DeviceReport, Failure, HeldPlan, PolicyReport, Retry,
        SelectorReport, State,
    },
};

pub(super) const T0: Timestamp = Timestamp::constant(1_800_000_000, 0);
pub(super) const T1: Timestamp = Timestamp::constant(1_800_000_060, 0);

pub(super) fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

pub(in crate::controller) fn key(name: &str) -> PolicyKey {
    PolicyKey::new("network", name)
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
        change: Change::Setting {
            before: Some(SettingValue::KeyExpiryDisabled(true)),
            after: SettingValue::KeyExpiryDisabled(false),
        },
        why: Why::Declared,
        cause: None,
        owner: key("fra-router"),
        others: Vec::new(),
        hold,
    }
}

pub(in crate::controller) fn device() -> DeviceReport {
    DeviceReport {
        successor: None,
        node: node("n1"),
        label: "fra-router".into(),
        working: false,
        unread: false,
        differences: Vec::new(),
        impacts: Vec::new(),
        waits: Vec::new(),
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
        record: Arc::new(PolicyRecord {
            bound: Some(bound),
            ..PolicyRecord::default()
        }),
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

/// A limit of five devices that holds a plan of sixty.
pub(super) fn limit_hold() -> Hold {
    Hold::Limit(Some(Box::new(LimitedPlan {
        devices: 60,
        limit: 5,
        declared: Some(ChangeLimit::Percent(10)),
        is_share: false,
        hash: Some(plan_hash()),
    })))
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
        summary: Arc::new(Summary {
            kinds: vec![ChangeKind {
                change: "tags: -tag:syd".to_owned(),
                devices,
                names: (1..=devices.min(100))
                    .map(|number| format!("srv-{number}"))
                    .collect(),
                is_disruptive: true,
            }],
            disruptive: devices,
            ..Summary::default()
        }),
    })
}

pub(super) fn plan_hash() -> PlanHash {
    "3f2a9c0b7d41e856".parse().unwrap()
}

pub(super) fn bound(report: DeviceReport) -> State {
    State::Bound(Box::new(report))
}

pub(super) fn unbound(binding: Binding) -> State {
    State::Unbound {
        named: "hostname fra-router".into(),
        binding,
        differences: Vec::new(),
    }
}

pub(super) fn forbidden() -> Forbidden {
    let error = "no rule of allowedPolicies allows this field".to_owned();
    Forbidden {
        errors: vec![("spec.tags".to_owned(), error)],
        suggested_rule: "allowedPolicies: [{namespaces: {names: [network]}, fields: [tags]}]"
            .to_owned(),
        labels_unknown: false,
    }
}

/// A device of many: it fails, is held, or is in sync.
pub(super) fn one_of_many(
    failures: Vec<(Option<Field>, Failure)>,
    hold: Option<Hold>,
) -> DeviceReport {
    let differs = !failures.is_empty() || hold.is_some();
    let mut difference = difference(hold);
    if let Some((Some(Field::List(ListSetting::Tags)), _)) = failures.first() {
        difference.change = Change::List(ListChange::Tags {
            before: TagSet::new(),
            after: ["tag:router".parse().unwrap()].into(),
        });
    }
    DeviceReport {
        differences: differs.then_some(difference).into_iter().collect(),
        failures,
        ..device()
    }
}

/// `matched` devices, of which one is as given and the others are in sync.
pub(super) fn many(matched: usize, one: DeviceReport) -> SelectorReport {
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

/// The settings that are still to be cleared on a device that a policy has released.
pub(super) fn clearing(trouble: Option<&str>) -> ClearReport {
    let difference = Difference {
        change: Change::List(ListChange::ExitNode {
            before: Route::exit_node(),
            after: RouteSet::new(),
        }),
        why: Why::Released,
        cause: None,
        ..difference(None)
    };
    ClearReport {
        left: 1,
        fields: 0,
        different: 1,
        differences: vec![difference],
        blocker: trouble.map(str::to_owned),
    }
}
