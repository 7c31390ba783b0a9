//! Each guard by itself, then all of them at random.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proptest::{option, prelude::*};

use super::{
    super::{
        AllowedRules, ApprovalStates, Change, Deletion, DesiredSettings, DeviceIndex, DevicePlan,
        DeviceTarget, Guardrails, Hold, Identity, Mode, Ownership, PlanContext, Policy, PolicyKey,
        PolicyRecord, Selector, Suspender, TailnetWide, Target, next_call, plan_device,
        scenes::{now, plain_device},
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

fn reaps() -> Policy {
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

/// A device that was last seen so long ago.
fn away(for_so_long: SignedDuration) -> Device {
    Device {
        connected: Some(false),
        last_seen: Some(now() - for_so_long),
        ..device()
    }
}

fn remembers(records: ActionRecords) -> PolicyRecord {
    PolicyRecord {
        actions: Arc::new(records),
        ..PolicyRecord::default()
    }
}

fn begun(at: Timestamp, before: Option<Timestamp>) -> PolicyRecord {
    let mut records = ActionRecords::default();
    records.begin_expiry(at, &device().node_id, before);
    remembers(records)
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
fn a_key_is_expired_once_its_time_has_come_and_for_an_hour_after_it() {
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
fn the_key_of_a_device_that_joined_after_the_time_is_left() {
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
fn no_key_is_expired_of_a_device_of_which_nobody_says_when_it_joined() {
    let policy = expires_at(now() - MINUTE);
    let unknown = Device {
        created: None,
        ..device()
    };
    let plan = plan(&unknown, &[(&policy, &PolicyRecord::default())]);
    assert_eq!(plan.differences[0].hold, Some(Hold::JoinTimeUnknown));
}

#[test]
fn a_time_before_the_creation_of_the_policy_is_missed_whatever_is_recorded() {
    let at = now() - MINUTE;
    let policy = Policy {
        created: now(),
        ..expires_at(at)
    };
    let missed = Some(Stage::Missed(Missed::BeforeCreation));
    assert_eq!(stage(&policy, &PolicyRecord::default(), &device()), missed);
    // A backup that brings the status back too.
    let record = begun(at, device().expires);
    assert_eq!(stage(&policy, &record, &device()), missed);
}

#[test]
fn what_has_begun_goes_on_only_while_the_key_is_the_one_of_then() {
    // However late: it was seen in time, and waited for an approval.
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
fn what_is_done_stays_done_whatever_the_key_is_by_now() {
    let at = now() - MINUTE;
    let mut records = ActionRecords::default();
    records.begin_expiry(at, &device().node_id, device().expires);
    records.finish_expiry(at, &device().node_id);
    assert!(!records.begin_expiry(at, &device().node_id, device().expires));
    let record = remembers(records);
    assert_eq!(
        stage(&expires_at(at), &record, &device()),
        Some(Stage::Done)
    );
    // Another time is another act.
    let other = expires_at(at + MINUTE);
    assert_eq!(stage(&other, &record, &device()), Some(Stage::Due));
}

#[test]
fn a_key_that_is_past_its_time_needs_no_call() {
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
fn a_key_that_never_expires_is_not_expired_in_vain() {
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
fn no_more_keys_are_expired_than_can_be_remembered() {
    let at = now();
    let mut records = ActionRecords::default();
    for number in 0..MAX_EXPIRIES {
        let id = format!("m{number}CNTRL").parse().unwrap();
        records.begin_expiry(at, &id, None);
    }
    let full = remembers(records.clone());
    let plan_of = |record: &PolicyRecord| plan(&device(), &[(&expires_at(at), record)]);
    let plan = plan_of(&full);
    assert_eq!(plan.differences[0].hold, Some(Hold::TooManyExpiries));
    // One that has begun goes on.
    records.expiries.get_mut(&at).unwrap().started.pop_last();
    records.begin_expiry(at, &device().node_id, device().expires);
    assert_eq!(plan_of(&remembers(records)).differences[0].hold, None);
}

#[test]
fn what_no_status_can_remember_is_not_done() {
    for (mut policy, device) in [(expires_at(now()), device()), (reaps(), away(60 * DAY))] {
        policy.uid.clear();
        let plan = plan(&device, &[(&policy, &PolicyRecord::default())]);
        assert_eq!(plan.differences[0].hold, Some(Hold::NoRecord));
        assert!(next_call(&plan, &BTreeSet::new()).is_none());
    }
}

#[test]
fn one_call_is_made_for_all_policies_whose_time_has_come() {
    let (first, mut second) = (expires_at(now() - MINUTE), expires_at(now()));
    second.key.name = "second".to_owned();
    let record = PolicyRecord::default();
    let plan = plan(&device(), &[(&second, &record), (&first, &record)]);
    let (_, together) = next_call(&plan, &BTreeSet::new()).unwrap();
    assert_eq!(together.len(), 2);
}

#[test]
fn a_record_covers_what_has_begun_and_what_is_done() {
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
fn a_device_is_deleted_once_it_has_been_away_for_long_enough() {
    let of = |device: &Device| inactivity(&reaps(), device, false, now());
    let last_seen = now() - 30 * DAY;
    assert_eq!(of(&away(30 * DAY)), Some(Inactivity::Inactive(last_seen)));
    let kept = Inactivity::KeptUntil(now() + MINUTE);
    assert_eq!(of(&away(30 * DAY - MINUTE)), Some(kept));
}

#[test]
fn a_device_is_not_deleted_while_anything_speaks_against_it() {
    let of = |device: &Device| inactivity(&reaps(), device, false, now());
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
    assert_eq!(inactivity(&reaps(), &away, true, now()), None, "protected");
    let single = Policy {
        target: Target::Device(DeviceTarget {
            identity: Identity::Hostname("host".to_owned()),
            tags: BTreeSet::new(),
            users: Vec::new(),
        }),
        ..reaps()
    };
    assert_eq!(inactivity(&single, &away, false, now()), None, "of one");
}

#[test]
fn a_device_that_is_to_be_deleted_gets_no_other_call() {
    let mut policy = reaps();
    policy.desired.exit_node = Some(true);
    let record = PolicyRecord::default();
    let plan_of = |policy: &Policy| plan(&away(60 * DAY), &[(policy, &record)]);
    let plan = plan_of(&policy);
    let changes: Vec<_> = plan.differences.iter().map(|it| &it.change).collect();
    assert!(
        matches!(changes[..], [Change::Delete { .. }]),
        "{changes:?}"
    );
    // While the deletion waits for an approval, the rest goes on.
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
fn a_device_whose_turn_it_is_not_waits_until_a_deletion_counts_no_more() {
    let policy = reaps();
    let mut records = ActionRecords::default();
    let other: NodeId = "n9CNTRL".parse().unwrap();
    records.begin_deletion(&other, String::new(), now() - HOUR);
    let record = remembers(records);
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
fn a_deletion_counts_for_no_less_than_a_day() {
    let mut records = ActionRecords::default();
    let id = device().node_id;
    records.begin_deletion(&id, String::new(), now());
    let deleted = |records: &ActionRecords, later| records.deleted(now() + later, &BTreeSet::new());
    assert_eq!(deleted(&records, DAY), 1);
    assert_eq!(deleted(&records, DAY + HOUR), 0);
    // A wall clock that was set back makes nothing count less.
    assert_eq!(deleted(&records, -DAY), 1);
    // A call long after the record needs another one; after a success none is made.
    assert!(!records.needs_deletion(&id, now() + MINUTE));
    assert!(records.needs_deletion(&id, now() + HOUR));
    records.deletions.get_mut(&id).unwrap().done = true;
    assert!(!records.needs_deletion(&id, now() + HOUR));
}

#[test]
fn a_suspended_policy_and_one_that_observes_do_nothing_and_say_what_they_would() {
    for (mode, hold) in [
        (
            Mode::Suspended(Suspender::Policy),
            Hold::Suspended(Suspender::Policy),
        ),
        (Mode::Observe, Hold::Observed),
    ] {
        for (mut policy, device) in [(expires_at(now()), device()), (reaps(), away(60 * DAY))] {
            policy.mode = mode;
            let plan = plan(&device, &[(&policy, &PolicyRecord::default())]);
            assert!(plan.differences.is_empty());
            assert_eq!(plan.shown[0].hold, Some(hold.clone()));
            let claims = &plan.owners;
            assert!(!plan.shown[0].begins_for(&policy.key, claims), "{mode:?}");
        }
    }
}

#[test]
fn what_another_place_has_kept_is_taken_in() {
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
    #![proptest_config(crate::plan::cases::cases(1024))]

    #[test]
    fn after_a_key_was_expired_no_call_follows_for_the_same_time(
        device in devices(), records in records(), desired in times(), relogin in option::of(times()),
    ) {
        let mut policy = expires_at(desired);
        // Some times are recorded.
        if let Some(at) = records.expiries.keys().next().filter(|_| desired > now()) {
            policy.desired.expire_key_at = Some(*at);
        }
        let at = policy.desired.expire_key_at.unwrap();
        let mut record = remembers(records);
        let plan_of = |device: &Device, record: &PolicyRecord| plan(device, &[(&policy, record)]);
        let first = plan_of(&device, &record);
        let Some((_, differences)) = next_call(&first, &BTreeSet::new()) else {
            return Ok(());
        };
        prop_assert!(differences.iter().all(|it| it.begins_for(&policy.key, &first.owners)));
        prop_assert!(at >= policy.created && at <= now());
        // The record that is kept before the call; the call; a crash; another login.
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
    fn only_what_is_surely_away_for_long_is_deleted(device in devices(), records in records(), protected: bool) {
        let mut policy = reaps();
        policy.desired.delete_inactive = Some(DeleteInactive { inactive_for: DAY, max_per_day: 1 });
        let record = remembers(records.clone());
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
