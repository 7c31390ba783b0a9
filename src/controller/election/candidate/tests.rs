use proptest::prelude::*;

use super::*;

/// The API server's part: keeps one lease and refuses a write that is based on an older one.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    writes: i64,
}

impl Server {
    fn write(&mut self, mut lease: Lease) -> Option<Lease> {
        let stored = self
            .lease
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.as_ref());
        if lease.metadata.resource_version.as_ref() != stored {
            return None;
        }
        self.writes += 1;
        lease.metadata.resource_version = Some(self.writes.to_string());
        self.lease = Some(lease);
        self.lease.clone()
    }
}

fn candidate(identity: &str) -> Candidate {
    Candidate::new("tsdp", identity, Timings::default())
}

/// A read of the lease, and the write that follows from it.
fn attempt(candidate: &mut Candidate, server: &mut Server, at: Instant) {
    candidate.saw(server.lease.clone(), at);
    write(candidate, server, at);
}

fn write(candidate: &mut Candidate, server: &mut Server, at: Instant) {
    if let Some(written) = send(candidate, server, at) {
        candidate.wrote(written, at);
    }
}

/// The API server gets what the candidate writes; its answer, unless it refuses.
fn send(candidate: &Candidate, server: &mut Server, at: Instant) -> Option<Lease> {
    // A clock decades behind the others'; it differs at each write.
    let wall_clock = Timestamp::from_microsecond(server.writes).unwrap();
    match candidate.next_move(at, wall_clock) {
        Move::Wait => None,
        Move::Create(lease) | Move::Replace(lease) => server.write(lease),
    }
}

fn leads(candidate: &Candidate, at: Instant) -> bool {
    candidate.leads_until(at).is_some()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What may happen to a candidate next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A look, the write that follows, and its answer, all at once.
    Attempts,
    Looks,
    /// The API server gets its write, based on what it saw last.
    Writes,
    /// The answer to that write arrives.
    Hears,
    /// The answer is lost.
    HearsNothing,
}

proptest! {
    #[test]
    fn there_are_never_two_leaders_whatever_is_slow_stale_or_lost(
        steps in prop::collection::vec(
            (0..3_usize, prop_oneof![
                Just(Event::Attempts),
                Just(Event::Looks),
                Just(Event::Writes),
                Just(Event::Hears),
                Just(Event::HearsNothing),
            ], prop_oneof![3 => 0..2_u64, 1 => 5..20_u64]),
            1..200,
        )
    ) {
        let mut server = Server::default();
        let mut candidates = ["a", "b", "c"].map(|identity| (candidate(identity), None));
        let mut now = Instant::now();
        for (who, event, pause) in steps {
            now += seconds(pause);
            let (candidate, answer) = &mut candidates[who];
            match event {
                Event::Attempts if answer.is_none() => attempt(candidate, &mut server, now),
                Event::Looks if answer.is_none() => candidate.saw(server.lease.clone(), now),
                Event::Writes if answer.is_none() => {
                    *answer = send(candidate, &mut server, now).map(|lease| (lease, now));
                }
                Event::Hears => {
                    if let Some((lease, sent)) = answer.take() {
                        candidate.wrote(lease, sent);
                    }
                }
                Event::HearsNothing => *answer = None,
                Event::Attempts | Event::Looks | Event::Writes => {}
            }
            let leaders = candidates.iter().filter(|(candidate, _)| leads(candidate, now));
            prop_assert!(leaders.count() <= 1);
        }
    }
}

#[test]
fn one_of_two_candidates_takes_an_expired_lease_and_the_transition_is_counted() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    attempt(&mut candidate("gone"), &mut server, start);
    a.saw(server.lease.clone(), start);
    b.saw(server.lease.clone(), start);

    let later = start + seconds(15);
    write(&mut a, &mut server, later);
    write(&mut b, &mut server, later);

    assert!(leads(&a, later) && !leads(&b, later));
    assert_eq!(
        server.lease.unwrap().spec.unwrap().lease_transitions,
        Some(1)
    );
}

#[test]
fn a_leader_that_cannot_renew_has_stopped_before_another_can_start() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    attempt(&mut a, &mut server, start);

    for second in 0..30 {
        let now = start + seconds(second);
        attempt(&mut b, &mut server, now);
        assert!(
            !(leads(&a, now) && leads(&b, now)),
            "both lead after {second} s"
        );
        assert_eq!(leads(&a, now), second < 10, "a after {second} s");
        assert_eq!(leads(&b, now), second >= 15, "b after {second} s");
    }
}

#[test]
fn renewed_lease_never_expires_whatever_its_timestamps() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    for round in 0..100 {
        let now = start + seconds(9 * round);
        attempt(&mut a, &mut server, now);
        attempt(&mut b, &mut server, now);
        assert!(leads(&a, now) && !leads(&b, now), "round {round}");
    }
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
    let start = Instant::now();
    attempt(&mut a, &mut server, start);
    attempt(&mut b, &mut server, start);
    assert_eq!(
        b.release(Timestamp::UNIX_EPOCH),
        None,
        "it is not b's to release"
    );

    server
        .write(a.release(Timestamp::UNIX_EPOCH).unwrap())
        .unwrap();
    attempt(&mut b, &mut server, start);

    assert!(leads(&b, start));
}

#[test]
fn leader_that_sees_another_holder_stops_leading() {
    let (mut a, mut server) = (candidate("a"), Server::default());
    let start = Instant::now();
    attempt(&mut a, &mut server, start);
    server
        .lease
        .as_mut()
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .holder_identity = Some("b".to_owned());

    attempt(&mut a, &mut server, start);

    assert!(!leads(&a, start));
}

#[test]
fn write_with_a_lost_response_is_repaired_by_the_next() {
    let (mut a, mut server) = (candidate("a"), Server::default());
    let start = Instant::now();
    a.saw(None, start);
    send(&a, &mut server, start).unwrap();
    assert!(!leads(&a, start), "it does not know");

    attempt(&mut a, &mut server, start);

    assert!(leads(&a, start));
}
