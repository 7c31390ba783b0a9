//! Deleting inactive devices.

use super::*;
use crate::model::TagSet;

#[test]
fn device_is_deleted_when_inactive_for_long_enough() {
    let of = |device: &Device| inactivity(&deletes_inactive(), device, false, now());
    let last_seen = now() - 30 * DAY;
    assert_eq!(of(&away(30 * DAY)), Some(Inactivity::Inactive(last_seen)));
    let kept = Inactivity::KeptUntil(now() + MINUTE);
    assert_eq!(of(&away(30 * DAY - MINUTE)), Some(kept));
}

#[test]
fn device_is_not_deleted_unless_surely_inactive() {
    let of = |device: &Device| inactivity(&deletes_inactive(), device, false, now());
    let away = away(60 * DAY);
    assert!(of(&away).is_some());
    let connected = Device {
        connected: Some(true),
        ..away.clone()
    };
    let maybe_connected = Device {
        connected: None,
        ..away.clone()
    };
    let external = Device {
        external: true,
        ..away.clone()
    };
    let never_seen = Device {
        last_seen: None,
        ..away.clone()
    };
    let joined_since = Device {
        created: Some(now() - 59 * DAY),
        ..away.clone()
    };
    let before_tailscale = Device {
        created: None,
        last_seen: Some(Timestamp::UNIX_EPOCH),
        ..away.clone()
    };
    let in_the_future = self::away(-DAY);
    let implausible = [joined_since, before_tailscale, in_the_future];
    for device in [connected, maybe_connected, external, never_seen]
        .into_iter()
        .chain(implausible)
    {
        assert_eq!(of(&device), None, "{device:?}");
    }
    assert_eq!(
        inactivity(&deletes_inactive(), &away, true, now()),
        None,
        "protected"
    );
    let single = Policy {
        target: Target::Device(DeviceTarget {
            identity: Identity::Hostname("host".to_owned()),
            tags: TagSet::new(),
            users: Vec::new(),
        }),
        ..deletes_inactive()
    };
    assert_eq!(
        inactivity(&single, &away, false, now()),
        None,
        "no selector"
    );
}

#[test]
fn device_to_be_deleted_gets_no_other_request() {
    let mut policy = deletes_inactive();
    policy.desired.exit_node = Some(true);
    let record = PolicyRecord::default();
    let plan_of = |policy: &Policy| plan(&away(60 * DAY), &[(policy, &record)]);
    let plan = plan_of(&policy);
    let changes: Vec<_> = plan.differences.iter().map(|it| &it.change).collect();
    assert!(
        matches!(changes[..], [Change::Delete { .. }]),
        "{changes:?}"
    );
    // While the deletion is pending approval, other changes are sent.
    let mut approving = policy.clone();
    approving.key = PolicyKey::new(&*approving.key.namespace, "approving");
    approving.mode = Mode::Approve;
    approving.desired.exit_node = None;
    policy.desired.delete_inactive = None;
    let both = [(&policy, &record), (&approving, &record)];
    let plan = self::plan(&away(60 * DAY), &both);
    assert!(matches!(
        plan.differences[0].change,
        Change::List(ListChange::ExitNode { .. })
    ));
    assert!(matches!(plan.shown[0].hold, Some(Hold::Approval(_))));
}

#[test]
fn device_without_a_turn_waits_until_a_deletion_no_longer_counts() {
    let policy = deletes_inactive();
    let mut records = ActionRecords::default();
    let other: NodeId = "n9CNTRL".parse().unwrap();
    records.begin_deletion(&other, String::new(), now() - HOUR);
    let record = recorded(records);
    let device = away(60 * DAY);
    let context = PlanContext {
        guardrails: &Guardrails::default(),
        index: &DeviceIndex::new([device.clone()]),
        approvals: &ApprovalStates::default(),
        tailnet_wide: &TailnetWide::default(),
        now: now(),
        released: &[],
        turns: &BTreeSet::new(),
    };
    let plan = plan_device(&device, None, &[(&policy, &record)], &context);
    assert!(plan.differences.is_empty() && plan.shown.is_empty());
    assert_eq!(plan.actions[0].stage, Stage::Waiting);
    let wakes = plan.wakes.unwrap();
    assert!(wakes > now() + 23 * HOUR && wakes < now() + 24 * HOUR);
}

#[test]
fn deletion_counts_for_at_least_a_day() {
    let mut records = ActionRecords::default();
    let id = device().node_id;
    records.begin_deletion(&id, String::new(), now());
    let deleted = |records: &ActionRecords, later| records.deleted(now() + later, &BTreeSet::new());
    assert_eq!(deleted(&records, DAY), 1);
    assert_eq!(deleted(&records, DAY + HOUR), 0);
    // Setting the wall clock back does not end a deletion's day.
    assert_eq!(deleted(&records, -DAY), 1);
    // A request long after its record needs a new record; a done deletion needs none.
    assert!(!records.needs_deletion(&id, now() + MINUTE));
    assert!(records.needs_deletion(&id, now() + HOUR));
    records.deletions.get_mut(&id).unwrap().done = true;
    assert!(!records.needs_deletion(&id, now() + HOUR));
}

#[test]
fn suspended_and_observing_policies_show_their_actions_and_send_nothing() {
    for (mode, hold) in [
        (
            Mode::Suspended(Suspender::Policy),
            Hold::Suspended(Suspender::Policy),
        ),
        (Mode::Observe, Hold::Observed),
    ] {
        for (mut policy, device) in [
            (expires_at(now()), device()),
            (deletes_inactive(), away(60 * DAY)),
        ] {
            policy.mode = mode;
            let plan = plan(&device, &[(&policy, &PolicyRecord::default())]);
            assert!(plan.differences.is_empty());
            assert_eq!(plan.shown[0].hold, Some(hold.clone()));
            let field_owners = &plan.owners;
            assert!(
                !plan.shown[0].begins_for(&policy.key, field_owners),
                "{mode:?}"
            );
        }
    }
}
