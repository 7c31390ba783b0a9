//! Expiring keys.

use super::*;

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
fn key_that_may_never_expire_is_not_taken_for_expired() {
    let unknown = Device {
        expires: Some(now() - MINUTE),
        unreadable: [DeviceField::KeyExpiryDisabled].into_iter().collect(),
        ..device()
    };
    let policy = expires_at(now());
    let plan = plan(&unknown, &[(&policy, &PolicyRecord::default())]);
    assert_eq!(plan.actions[0].stage, Stage::Due);
    let holds: Vec<_> = plan.shown.iter().map(|it| it.hold.clone()).collect();
    assert_eq!(holds, [Some(Hold::Unreadable(unknown.unreadable))]);
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
    second.key = PolicyKey::new(&*second.key.namespace, "second");
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
