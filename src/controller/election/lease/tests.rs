use std::time::Duration;

use super::*;

fn lead(term: Term, millis: u64) -> Lead {
    Lead {
        term,
        hold: 1,
        until: Instant::now() + Duration::from_millis(millis),
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_lost_and_regained_between_two_checks_is_a_new_term() {
    let first = Term::FIRST;
    let (sender, receiver) = watch::channel(Some(lead(first, 10_000)));
    let mut leadership = Leadership(receiver);
    assert_eq!(leadership.next(None).await, Some(first));
    sender.send(None).unwrap();
    sender.send(Some(lead(first.next(), 10_000))).unwrap();
    assert_eq!(leadership.next(Some(first)).await, Some(first.next()));
    assert!(!leadership.leads(first) && leadership.leads(first.next()));
}

#[tokio::test(start_paused = true)]
async fn term_ends_by_the_clock_without_a_message_from_the_election() {
    let first = Term::FIRST;
    let (_sender, receiver) = watch::channel(Some(lead(first, 50)));
    let mut leadership = Leadership(receiver);
    assert!(leadership.leads(first));
    assert_eq!(leadership.next(Some(first)).await, None);
    assert!(!leadership.leads(first));
}

#[tokio::test(start_paused = true)]
async fn leadership_renewed_after_it_expired_is_a_new_term() {
    let cluster = kube::Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap()));
    let (sender, receiver) = watch::channel(None);
    let leadership = Leadership(receiver);
    let timings = Timings::default();
    let mut election = Election {
        tried: Box::new(|_| ()),
        api: Api::namespaced(cluster.unwrap(), "default"),
        name: "tsdp".to_owned(),
        timings,
        candidate: Candidate::new("tsdp", "it", timings),
        leadership: sender,
        next_term: Term::FIRST,
        failing: false,
    };
    take(&mut election);
    let first = leadership.term();
    assert_eq!(first, Some(Term::FIRST));
    tokio::time::advance(timings.retry()).await;
    take(&mut election);
    assert_eq!(leadership.term(), first, "a renewal in time");
    tokio::time::advance(timings.renew_deadline()).await;
    assert_eq!(leadership.term(), None);
    take(&mut election);
    assert_eq!(leadership.term(), Some(Term::FIRST.next()));
}

/// A write of the lease that succeeds.
fn take(election: &mut Election) {
    let now = Instant::now();
    match election.candidate.next_move(now, Timestamp::now()) {
        Move::Create(lease) | Move::Replace(lease) => election.candidate.wrote(lease, now),
        Move::Wait => panic!("it is held by another one"),
    }
    election.publish();
}
