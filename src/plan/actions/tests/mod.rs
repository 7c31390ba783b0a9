//! Each condition of a one-shot action alone, then all of them at random.

mod deletions;
mod expiries;

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proptest::{option, prelude::*};

use super::{
    super::{
        AllowedRules, ApprovalStates, Change, Deletion, DesiredSettings, DeviceIndex, DevicePlan,
        DeviceTarget, Guardrails, Hold, Identity, ListChange, Mode, Ownership, PlanContext, Policy,
        PolicyKey, PolicyRecord, Selector, Suspender, TailnetWide, Target, next_call, plan_device,
        tests::scenes::{now, plain_device},
    },
    ActionRecords, DeleteInactive, DeletionRecord, Inactivity, MAX_EXPIRIES, Missed, Stage, expiry,
    inactivity,
};
use crate::model::{Device, DeviceField, NodeId};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn policy(desired: DesiredSettings) -> Policy {
    Policy {
        key: PolicyKey::new("network", "policy"),
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
