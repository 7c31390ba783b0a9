use super::*;

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn key(namespace: &str, name: &str) -> PolicyKey {
    PolicyKey::new(namespace, name)
}

fn large() -> PolicyKey {
    key("network", "large")
}

fn small() -> PolicyKey {
    key("network", "small")
}

fn node(number: usize) -> NodeId {
    format!("n{number:03}CNTRL").parse().unwrap()
}

fn at(minutes: u64) -> Now {
    let monotonic = Duration::from_mins(minutes);
    let wall = START + monotonic;
    Now { monotonic, wall }
}

/// One policy needs to change five devices, the other one a sixth.
fn budget() -> ChangeBudget {
    let mut budget = ChangeBudget::default();
    for number in 0..5 {
        budget.note(&node(number), &[large()].into());
    }
    budget.note(&node(5), &[small()].into());
    budget
}

/// Applies a limit of so many devices. Returns the held policies.
fn held(budget: &mut ChangeBudget, most: usize) -> BTreeSet<PolicyKey> {
    budget.find_large(Some(most));
    budget.hold(Some(most), None, PolicyKey::clone);
    budget.held().clone()
}

fn change(budget: &mut ChangeBudget, number: usize, now: Now) {
    budget.begin(&node(number), Some("network".to_owned()));
    budget.end(&node(number), true, now);
}

#[test]
fn the_policy_that_changes_the_most_devices_is_held_first() {
    let mut budget = budget();
    assert_eq!(held(&mut budget, 3), [large()].into());
    assert!(budget.holds(&node(0), &large()) && !budget.holds(&node(5), &small()));
    let change = budget.hold(Some(6), None, PolicyKey::clone);
    assert_eq!(change.held, [large()].into());
    assert_eq!(
        budget.hold(Some(6), None, PolicyKey::clone),
        LimitChange::default()
    );
    assert!(!budget.holds(&node(0), &large()) && budget.holds_until().is_none());
}

#[test]
fn changes_use_up_the_limit_for_an_hour() {
    let mut budget = budget();
    for number in 10..13 {
        change(&mut budget, number, at(0));
    }
    assert_eq!(held(&mut budget, 3), [large(), small()].into());
    assert_eq!(budget.holds_until(), Some(Duration::from_hours(1)));
    assert!(budget.expire(Duration::from_mins(59)).is_empty());
    assert_eq!(budget.expire(Duration::from_hours(1)).len(), 3);
    assert_eq!(held(&mut budget, 3), [large()].into());
}

#[test]
fn a_refused_request_uses_up_nothing() {
    let mut budget = budget();
    budget.begin(&node(9), None);
    assert!(budget.is_in_flight(&node(9)));
    assert_eq!(held(&mut budget, 6), [large()].into());
    budget.end(&node(9), false, at(0));
    assert!(!budget.is_in_flight(&node(9)));
    assert!(held(&mut budget, 6).is_empty());
}

#[test]
fn changing_a_device_again_is_free_for_a_small_policy_only() {
    let mut budget = budget();
    change(&mut budget, 0, at(0));
    change(&mut budget, 5, at(0));
    budget.note(&node(5), &[small()].into());
    assert_eq!(held(&mut budget, 2), [large()].into());
    // It needs more devices than the limit allows, so none of them is free.
    assert!(budget.holds(&node(0), &large()));
    assert!(!budget.holds(&node(5), &small()));
    assert_eq!(budget.wanted_by(&small()).len(), 0);
}

#[test]
fn a_namespace_that_exceeds_its_share_is_held_while_the_tailnet_has_room() {
    let mut budget = budget();
    budget.note(&node(9), &[key("other", "one")].into());
    let change = budget.hold(Some(100), Some(2), PolicyKey::clone);
    assert_eq!(change.beyond_share, [large()].into());
    assert!(budget.is_beyond_share(&large()) && !budget.is_beyond_share(&small()));
    assert_eq!(budget.held(), &change.held);
}

#[test]
fn without_a_limit_nothing_is_held() {
    let mut budget = budget();
    held(&mut budget, 1);
    assert_eq!(budget.held().len(), 1);
    budget.find_large(None);
    budget.hold(None, None, PolicyKey::clone);
    assert!(budget.held().is_empty());
}

#[test]
fn the_record_of_a_previous_leader_counts_once_for_each_term() {
    let mut budget = budget();
    let declared = || TailnetDeclared {
        recent: vec![RecentChanges {
            since: START,
            devices: 4,
            namespace: None,
        }],
        ..TailnetDeclared::default()
    };
    assert!(budget.recent().is_none());
    assert!(!budget.declare(declared()));
    budget.take_over(at(1));
    assert_eq!(budget.recent().map(Vec::len), Some(1));
    assert_eq!(held(&mut budget, 9), [large()].into());
    // The status that this process wrote is watched, and counts no second time.
    let doubled = RecentChanges {
        devices: 9,
        ..declared().recent[0].clone()
    };
    budget.declare(TailnetDeclared {
        recent: vec![doubled],
        ..declared()
    });
    budget.take_over(at(2));
    assert_eq!(held(&mut budget, 10), BTreeSet::new());
    budget.start_term();
    budget.declare(declared());
    budget.take_over(at(3));
    assert_eq!(held(&mut budget, 9), [large()].into());
}

#[test]
fn only_devices_that_use_up_the_limit_need_room_to_be_reserved() {
    let mut budget = budget();
    change(&mut budget, 0, at(0));
    held(&mut budget, 3);
    let all = (0..6).map(node).collect();
    budget.reserve(Vec::new(), all, 2, |_| None);
    let reserved: Vec<NodeId> = budget.reservations().reserved().cloned().collect();
    // The others are held, so they need no room: nothing is sent to them.
    assert!(reserved.contains(&node(0)) && reserved.contains(&node(5)));
    assert!(!budget.reservations().is_recorded(&node(5)));
    let revision = budget.reservations().revision();
    budget.reservations_mut().note_recorded(revision);
    assert!(budget.reservations().is_recorded(&node(5)));
}

#[test]
fn a_deletion_counts_once_its_record_is_durable() {
    let mut budget = ChangeBudget::default();
    budget.begin_deletion(&large(), "uid", START);
    assert!(!budget.has_recorded_deletions());
    let revision = budget.reservations().revision();
    budget.reservations_mut().note_recorded(revision);
    assert!(budget.has_recorded_deletions());
    assert_eq!(budget.deletions().recent().len(), 1);
    assert!(budget.expire_deletions(START + Duration::from_hours(25)));
}

#[test]
fn the_reported_number_of_changes_rises_when_all_is_quiet_and_falls_in_steps() {
    let mut budget = budget();
    assert_eq!(budget.changed(), None);
    budget.declare(TailnetDeclared::default());
    budget.take_over(at(10));
    assert_eq!(budget.changed(), Some(0));
    let seconds = |seconds| Duration::from_mins(10) + Duration::from_secs(seconds);
    for (number, second) in [(0, 1), (1, 20), (2, 40)] {
        let monotonic = seconds(second);
        let now = Now {
            monotonic,
            wall: START + monotonic,
        };
        change(&mut budget, number, now);
        budget.count_changed(false, monotonic);
    }
    // The rollout is reported now and then, and at its end.
    assert_eq!(budget.changed(), Some(3));
    change(&mut budget, 3, at(11));
    budget.count_changed(true, Duration::from_mins(11));
    assert_eq!(budget.changed(), Some(4));
    // An hour later they no longer count, one after the other.
    let mut seen = BTreeSet::new();
    for second in 0..600 {
        let now = Duration::from_hours(1) + seconds(second);
        budget.expire(now);
        budget.count_changed(true, now);
        seen.insert(budget.changed());
    }
    assert_eq!(seen, [Some(4), Some(3), Some(0)].into());
}

#[test]
fn policies_between_which_the_limit_cannot_decide_stay_held_until_something_else_changes() {
    let mut budget = ChangeBudget::default();
    budget.note(&node(0), &[small()].into());
    assert!(held(&mut budget, 6).is_empty());
    budget.hold_unsettled([large()].into());
    assert_eq!(held(&mut budget, 6), [large()].into());
    assert_eq!(held(&mut budget, 6), [large()].into());
    budget.hold_unsettled(BTreeSet::new());
    assert!(held(&mut budget, 6).is_empty());
}
