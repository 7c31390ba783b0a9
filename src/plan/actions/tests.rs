//! Each condition of a one-shot action alone, then all of them at random.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proptest::{option, prelude::*};

use super::{
    super::{
        AllowedRules, ApprovalStates, Change, Deletion, DesiredSettings, DeviceIndex, DevicePlan,
        DeviceTarget, Guardrails, Hold, Identity, Mode, Ownership, PlanContext, Policy, PolicyKey,
        PolicyRecord, Selector, Suspender, TailnetWide, Target, next_call, plan_device,
        tests::scenes::{now, plain_device},
    },
    ActionRecords, DeleteInactive, DeletionRecord, Inactivity, MAX_EXPIRIES, Missed, Stage, expiry,
    inactivity,
};
use crate::model::{Device, NodeId};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn policy(desired: DesiredSettings) -> Policy {
    Policy {
        key: PolicyKey {
            namespace: "network".to_owned(),
            name: "policy".to_owned(),
        },
        uid: "uid".to_owned(),
        generation: 1,
        priority: 0,
        created: now() - 30 * DAY,
        target: Target::Selector(Selector::default()),
        desired,
        ownership: Ownership::default(),
        mode: Mode::Enforce,
        allowed: BTreeSet::new(),
        deletion: Deletion::Retain,
        allowance: AllowedRules::default(),
    }
}

fn expires_at(at: Timestamp) -> Policy {
    policy(DesiredSettings {
        expire_key_at: Some(at),
        ..DesiredSettings::default()
    })
}

fn deletes_inactive() -> Policy {
    policy(DesiredSettings {
        delete_inactive: Some(DeleteInactive {
            inactive_for: 30 * DAY,
            max_per_day: 5,
        }),
        ..DesiredSettings::default()
    })
}

/// A device whose key expires next month.
fn device() -> Device {
    Device {
        expires: Some(now() + 30 * DAY),
        created: Some(now() - 90 * DAY),
        ..plain_device()
    }
}

/// A device that was last seen this long ago.
fn away(duration: SignedDuration) -> Device {
    Device {
        connected: Some(false),
        last_seen: Some(now() - duration),
        ..device()
    }
}

fn recorded(records: ActionRecords) -> PolicyRecord {
    PolicyRecord {
        actions: Arc::new(records),
        ..PolicyRecord::default()
    }
}

fn begun(at: Timestamp, before: Option<Timestamp>) -> PolicyRecord {
    let mut records = ActionRecords::default();
    records.begin_expiry(at, &device().node_id, before);
    recorded(records)
}

fn stage(policy: &Policy, record: &PolicyRecord, device: &Device) -> Option<Stage> {
    expiry(policy, record, device, now())
}

fn plan(device: &Device, policies: &[(&Policy, &PolicyRecord)]) -> DevicePlan {
    let turns = policies.iter().map(|(policy, _)| policy.key.clone());
    let context = PlanContext {
        guardrails: &Guardrails::default(),
        index: &DeviceIndex::new([device.clone()]),
        approvals: &ApprovalStates::default(),
        tailnet_wide: &TailnetWide::default(),
        now: now(),
        released: &[],
        turns: &turns.collect(),
    };
    plan_device(device, None, policies, &context)
}

#[test]
fn key_is_expired_within_an_hour_of_its_time() {
    let of = |ago: SignedDuration| {
        let at = now() - ago;
        stage(&expires_at(at), &PolicyRecord::default(), &device())
    };
    assert_eq!(of(-MINUTE), Some(Stage::Scheduled));
    assert_eq!(of(SignedDuration::ZERO), Some(Stage::Due));
    assert_eq!(of(HOUR), Some(Stage::Due));
    let late = HOUR + SignedDuration::from_secs(1);
    assert_eq!(of(late), Some(Stage::Missed(Missed::TooLate)));
}

#[test]
fn key_of_device_that_joined_after_the_time_is_not_expired() {
    let policy = expires_at(now() - MINUTE);
    let of = |device: &Device| stage(&policy, &PolicyRecord::default(), device);
    let joined = |ago: SignedDuration| Device {
        created: Some(now() - ago),
        ..device()
    };
    assert_eq!(of(&joined(MINUTE)), Some(Stage::Due));
    let later = Some(Stage::Missed(Missed::JoinedLater));
    assert_eq!(of(&joined(SignedDuration::from_secs(59))), later);
}

#[test]
fn key_of_device_with_unknown_join_time_is_held() {
    let policy = expires_at(now() - MINUTE);
    let unknown = Device {
        created: None,
        ..device()
    };
    let plan = plan(&unknown, &[(&policy, &PolicyRecord::default())]);
    assert_eq!(plan.differences[0].hold, Some(Hold::JoinTimeUnknown));
}

#[test]
fn time_before_the_creation_of_the_policy_is_missed_despite_a_record() {
    let at = now() - MINUTE;
    let policy = Policy {
        created: now(),
        ..expires_at(at)
    };
    let missed = Some(Stage::Missed(Missed::BeforeCreation));
    assert_eq!(stage(&policy, &PolicyRecord::default(), &device()), missed);
    // A backup can restore the status too.
    let record = begun(at, device().expires);
    assert_eq!(stage(&policy, &record, &device()), missed);
}

#[test]
fn begun_expiry_continues_only_while_the_key_is_unchanged() {
    // Even this late: it was recorded in time, and pending approval.
    let policy = expires_at(now() - 5 * HOUR);
    let record = |before| begun(now() - 5 * HOUR, before);
    let same = record(device().expires);
    assert_eq!(stage(&policy, &same, &device()), Some(Stage::Started));
    for before in [None, Some(now() - HOUR), Some(now() + DAY)] {
        let other = record(before);
        assert_eq!(stage(&policy, &other, &device()), Some(Stage::Done));
    }
}

#[test]
fn done_expiry_stays_done_when_the_key_changes() {
    let at = now() - MINUTE;
    let mut records = ActionRecords::default();
    records.begin_expiry(at, &device().node_id, device().expires);
    records.finish_expiry(at, &device().node_id);
    assert!(!records.begin_expiry(at, &device().node_id, device().expires));
    let record = recorded(records);
    assert_eq!(
        stage(&expires_at(at), &record, &device()),
        Some(Stage::Done)
    );
    // Another time is another action.
    let other = expires_at(at + MINUTE);
    assert_eq!(stage(&other, &record, &device()), Some(Stage::Due));
}

#[test]
fn expired_key_needs_no_request() {
    let past = Device {
        expires: Some(now() - MINUTE),
        ..device()
    };
    let policy = expires_at(now());
    assert_eq!(
        stage(&policy, &PolicyRecord::default(), &past),
        Some(Stage::Done)
    );
    let plan = plan(&past, &[(&policy, &PolicyRecord::default())]);
    assert!(plan.differences.is_empty(), "{plan:#?}");
}

#[test]
fn key_with_disabled_expiry_is_held() {
    let never = Device {
        key_expiry_disabled: true,
        ..device()
    };
    let plan = plan(&never, &[(&expires_at(now()), &PolicyRecord::default())]);
    let holds: Vec<_> = plan.differences.iter().map(|it| it.hold.clone()).collect();
    assert_eq!(holds, [Some(Hold::KeyNeverExpires)]);
    assert!(next_call(&plan, &BTreeSet::new()).is_none());
}

#[test]
fn expiry_that_the_status_cannot_record_is_held() {
    let at = now();
    let mut records = ActionRecords::default();
    for number in 0..MAX_EXPIRIES {
        let id = format!("m{number}CNTRL").parse().unwrap();
        records.begin_expiry(at, &id, None);
    }
    let full = recorded(records.clone());
    let plan_of = |record: &PolicyRecord| plan(&device(), &[(&expires_at(at), record)]);
    let plan = plan_of(&full);
    assert_eq!(plan.differences[0].hold, Some(Hold::TooManyExpiries));
    // A begun one continues.
    records.expiries.get_mut(&at).unwrap().started.pop_last();
    records.begin_expiry(at, &device().node_id, device().expires);
    assert_eq!(plan_of(&recorded(records)).differences[0].hold, None);
}

#[test]
fn action_of_policy_without_status_is_held() {
    for (mut policy, device) in [
        (expires_at(now()), device()),
        (deletes_inactive(), away(60 * DAY)),
    ] {
        policy.uid.clear();
        let plan = plan(&device, &[(&policy, &PolicyRecord::default())]);
        assert_eq!(plan.differences[0].hold, Some(Hold::NoRecord));
        assert!(next_call(&plan, &BTreeSet::new()).is_none());
    }
}

#[test]
fn one_request_expires_the_key_for_all_due_policies() {
    let (first, mut second) = (expires_at(now() - MINUTE), expires_at(now()));
    second.key.name = "second".to_owned();
    let record = PolicyRecord::default();
    let plan = plan(&device(), &[(&second, &record), (&first, &record)]);
    let (_, together) = next_call(&plan, &BTreeSet::new()).unwrap();
    assert_eq!(together.len(), 2);
}

#[test]
fn record_covers_begun_and_done_actions() {
    let (at, id) = (now(), device().node_id);
    let nothing = ActionRecords::default();
    let mut started = ActionRecords::default();
    started.begin_expiry(at, &id, None);
    let mut done = started.clone();
    done.finish_expiry(at, &id);
    assert!(!nothing.cover(&started) && !nothing.cover(&done));
    assert!(started.cover(&done) && done.cover(&started));
    let mut deleting = ActionRecords::default();
    deleting.begin_deletion(&id, String::new(), now());
    let mut anew = deleting.clone();
    anew.begin_deletion(&id, String::new(), now() + HOUR);
    assert!(!nothing.cover(&deleting) && !deleting.cover(&anew) && anew.cover(&deleting));
}

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
            tags: BTreeSet::new(),
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
    approving.key.name = "approving".to_owned();
    approving.mode = Mode::Approve;
    approving.desired.exit_node = None;
    policy.desired.delete_inactive = None;
    let both = [(&policy, &record), (&approving, &record)];
    let plan = self::plan(&away(60 * DAY), &both);
    assert!(matches!(
        plan.differences[0].change,
        Change::ExitNode { .. }
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

#[test]
fn merged_record_keeps_done_actions_and_the_latest_deletion() {
    let (at, id) = (now(), device().node_id);
    let mut own = ActionRecords::default();
    own.begin_expiry(at, &id, None);
    own.begin_deletion(&id, String::new(), now());
    let mut other = own.clone();
    other.finish_expiry(at, &id);
    other.begin_deletion(&id, String::new(), now() - HOUR);
    own.merge(&other);
    assert!(own.expiries[&at].started.is_empty() && own.expiries[&at].done.contains(&id));
    assert_eq!(own.deletions[&id].at, now());
}

fn times() -> impl Strategy<Value = Timestamp> {
    (-100_000..100_000_i64).prop_map(|seconds| now() + SignedDuration::from_secs(seconds))
}

fn records() -> impl Strategy<Value = ActionRecords> {
    let expiry = (times(), option::of(times()), any::<bool>());
    let deletion = (times(), any::<bool>());
    (option::of(expiry), option::of(deletion)).prop_map(|(expiry, deletion)| {
        let id = device().node_id;
        let mut records = ActionRecords::default();
        if let Some((at, before, done)) = expiry {
            records.begin_expiry(at, &id, before);
            if done {
                records.finish_expiry(at, &id);
            }
        }
        if let Some((at, done)) = deletion {
            let name = String::new();
            records
                .deletions
                .insert(id, DeletionRecord { at, name, done });
        }
        records
    })
}

fn devices() -> impl Strategy<Value = Device> {
    let flags = (
        any::<bool>(),
        option::of(any::<bool>()),
        prop::bool::weighted(0.2),
    );
    let times = (option::of(times()), option::of(times()));
    (flags, times).prop_map(
        |((disabled, connected, external), (expires, last_seen))| Device {
            key_expiry_disabled: disabled,
            connected,
            external,
            expires,
            last_seen,
            ..plain_device()
        },
    )
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(1024))]

    #[test]
    fn expired_key_is_not_expired_again_for_the_same_time(
        device in devices(), records in records(), desired in times(), relogin in option::of(times()),
    ) {
        let mut policy = expires_at(desired);
        // Some times are recorded.
        if let Some(at) = records.expiries.keys().next().filter(|_| desired > now()) {
            policy.desired.expire_key_at = Some(*at);
        }
        let at = policy.desired.expire_key_at.unwrap();
        let mut record = recorded(records);
        let plan_of = |device: &Device, record: &PolicyRecord| plan(device, &[(&policy, record)]);
        let first = plan_of(&device, &record);
        let Some((_, differences)) = next_call(&first, &BTreeSet::new()) else {
            return Ok(());
        };
        prop_assert!(differences.iter().all(|it| it.begins_for(&policy.key, &first.owners)));
        prop_assert!(at >= policy.created && at <= now());
        // The record before the request; the request; a crash; another login.
        Arc::make_mut(&mut record.actions).begin_expiry(at, &device.node_id, device.expires);
        let mut expired = device.clone();
        expired.expires = Some(now());
        for expires in [Some(now()), relogin] {
            expired.expires = expires.or(Some(now()));
            if expired.expires != device.expires {
                let second = plan_of(&expired, &record);
                prop_assert!(next_call(&second, &BTreeSet::new()).is_none(), "{second:#?}");
            }
        }
    }

    #[test]
    fn only_surely_inactive_devices_are_deleted(device in devices(), records in records(), protected: bool) {
        let mut policy = deletes_inactive();
        policy.desired.delete_inactive = Some(DeleteInactive { inactive_for: DAY, max_per_day: 1 });
        let record = recorded(records.clone());
        let plan = plan(&device, &[(&policy, &record)]);
        if let Some((_, differences)) = next_call(&plan, &BTreeSet::new()) {
            let deletion = Change::Delete {
                last_seen: device.last_seen.unwrap(),
            };
            prop_assert!(differences.iter().all(|it| it.change == deletion));
            prop_assert!(device.connected == Some(false) && !device.external);
            prop_assert!(device.last_seen.unwrap() + DAY <= now());
            let done = records.deletions.values().any(|it| it.done && it.counts(now()));
            prop_assert!(!done);
        }
        let deleted_inactive = matches!(inactivity(&policy, &device, protected, now()), Some(Inactivity::Inactive(_)));
        prop_assert!(!(deleted_inactive && protected));
    }
}
