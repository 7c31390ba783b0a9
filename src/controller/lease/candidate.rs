//! What a candidate knows of the lease, and its next move. No I/O; the time is an argument.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::time::Instant;

use super::Timings;

/// What to send to the API server.
#[derive(Debug, PartialEq)]
pub(super) enum Move {
    /// Nothing: another one holds the lease.
    Wait,
    /// There is no lease: make one that we hold.
    Create(Lease),
    /// Renew or take it; refused if it was written since it was seen (its resourceVersion).
    Replace(Lease),
}

#[derive(Debug)]
pub(super) struct Candidate {
    name: String,
    identity: String,
    timings: Timings,
    seen: Option<Seen>,
    /// Set by a write of ours that succeeded.
    leads_until: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// When its content was first seen: its holder was alive then, or before.
    since: Instant,
}

impl Candidate {
    pub(super) fn new(name: &str, identity: &str, timings: Timings) -> Self {
        Self {
            name: name.to_owned(),
            identity: identity.to_owned(),
            timings,
            seen: None,
            leads_until: None,
        }
    }

    /// The end of our leadership unless it is renewed; none if we do not lead.
    pub(super) fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| now < *until)
    }

    /// Who holds the lease, as last seen.
    pub(super) fn holder(&self) -> Option<&str> {
        holder(&self.seen.as_ref()?.lease)
    }

    /// The lease as the API server has it; none if there is none.
    pub(super) fn saw(&mut self, lease: Option<Lease>, now: Instant) {
        let unchanged_since = |seen: &Seen, lease: &Lease| {
            if seen.lease.spec == lease.spec {
                seen.since
            } else {
                now
            }
        };
        self.seen = lease.map(|lease| Seen {
            since: self
                .seen
                .as_ref()
                .map_or(now, |seen| unchanged_since(seen, &lease)),
            lease,
        });
        if self.holder() != Some(&self.identity) {
            self.leads_until = None;
        }
    }

    pub(super) fn next_move(&self, now: Instant, wall_clock: Timestamp) -> Move {
        let Some(seen) = &self.seen else {
            return Move::Create(self.held(&Lease::default(), wall_clock));
        };
        let free = match holder(&seen.lease) {
            None => true,
            Some(holder) => {
                holder == self.identity || now >= seen.since + self.duration_of(&seen.lease)
            }
        };
        if free {
            Move::Replace(self.held(&seen.lease, wall_clock))
        } else {
            Move::Wait
        }
    }

    /// A write of [`Self::next_move`] succeeded; `sent` is a time before it was sent.
    pub(super) fn wrote(&mut self, lease: Lease, sent: Instant) {
        // Others count the lease's duration from when they see the write, which is after `sent`.
        self.leads_until = Some(sent + self.timings.renew_deadline());
        self.seen = Some(Seen { lease, since: sent });
    }

    /// The lease to write so that another may take it at once; none if it is not ours.
    pub(super) fn release(&self, wall_clock: Timestamp) -> Option<Lease> {
        let seen = self
            .seen
            .as_ref()
            .filter(|_| self.holder() == Some(&self.identity))?;
        let mut lease = seen.lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        // The API server refuses 0; client-go writes 1 here too.
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(wall_clock));
        Some(lease)
    }

    /// The lease with us as its holder. The times in it are for people; nobody decides by them.
    fn held(&self, before: &Lease, wall_clock: Timestamp) -> Lease {
        let renewal = holder(before) == Some(&self.identity);
        let old = before.spec.clone().unwrap_or_default();
        let now = MicroTime(wall_clock);
        // The first holder is no change of holders.
        let transitions = old
            .lease_transitions
            .map_or(0, |count| count + i32::from(!renewal));
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..before.metadata.clone()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(self.timings.0.get().into()),
                acquire_time: if renewal {
                    old.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..old
            }),
        }
    }

    /// The duration that its holder chose, which may be another than ours during an upgrade.
    fn duration_of(&self, lease: &Lease) -> Duration {
        lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.timings.lease(), Duration::from_secs)
    }
}

/// The holder's identity; an empty one is none (client-go releases so).
fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API server's part: keeps one lease and refuses a write that is based on an older one.
    #[derive(Default)]
    struct Server(Option<Lease>);

    impl Server {
        fn write(&mut self, mut lease: Lease) -> Option<Lease> {
            let stored = |lease: &Option<Lease>| lease.as_ref()?.metadata.resource_version.clone();
            if lease.metadata.resource_version != stored(&self.0) {
                return None;
            }
            let version = stored(&self.0).map_or(1, |version| version.parse::<u64>().unwrap() + 1);
            lease.metadata.resource_version = Some(version.to_string());
            self.0 = Some(lease);
            self.0.clone()
        }
    }

    fn candidate(identity: &str) -> Candidate {
        Candidate::new("tsdp", identity, Timings::default())
    }

    /// A look at the lease, and the write that follows from it.
    fn attempt(candidate: &mut Candidate, server: &mut Server, at: Instant) {
        candidate.saw(server.0.clone(), at);
        write(candidate, server, at);
    }

    fn write(candidate: &mut Candidate, server: &mut Server, at: Instant) {
        if let Move::Create(lease) | Move::Replace(lease) =
            candidate.next_move(at, Timestamp::UNIX_EPOCH)
            && let Some(written) = server.write(lease)
        {
            candidate.wrote(written, at);
        }
    }

    fn leads(candidate: &Candidate, at: Instant) -> bool {
        candidate.leads_until(at).is_some()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn of_two_that_saw_no_lease_one_wins() {
        let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
        let start = Instant::now();
        a.saw(None, start);
        b.saw(None, start);

        write(&mut a, &mut server, start);
        write(&mut b, &mut server, start);

        assert!(leads(&a, start) && !leads(&b, start));
    }

    #[test]
    fn of_two_that_saw_it_run_out_one_wins() {
        let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
        let start = Instant::now();
        attempt(&mut candidate("gone"), &mut server, start);
        a.saw(server.0.clone(), start);
        b.saw(server.0.clone(), start);

        let later = start + seconds(15);
        write(&mut a, &mut server, later);
        write(&mut b, &mut server, later);

        assert!(leads(&a, later) && !leads(&b, later));
        assert_eq!(server.0.unwrap().spec.unwrap().lease_transitions, Some(1));
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
    fn a_lease_that_is_renewed_never_runs_out_whatever_its_times_say() {
        let (mut a, mut b, mut server) = (candidate("a"), candidate("b"), Server::default());
        let start = Instant::now();
        for round in 0_u64..100 {
            let now = start + seconds(9 * round);
            // The holder's clock stands decades behind, and moves.
            a.saw(server.0.clone(), now);
            let wall_clock = Timestamp::from_second(i64::try_from(round).unwrap()).unwrap();
            if let Move::Create(lease) | Move::Replace(lease) = a.next_move(now, wall_clock) {
                a.wrote(server.write(lease).unwrap(), now);
            }
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
    fn who_sees_another_holder_leads_no_more() {
        let (mut a, mut server) = (candidate("a"), Server::default());
        let start = Instant::now();
        attempt(&mut a, &mut server, start);
        server
            .0
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
    fn a_write_whose_answer_was_lost_is_made_good_by_the_next() {
        let (mut a, mut server) = (candidate("a"), Server::default());
        let start = Instant::now();
        a.saw(None, start);
        let Move::Create(lease) = a.next_move(start, Timestamp::UNIX_EPOCH) else {
            panic!()
        };
        server.write(lease).unwrap();
        assert!(!leads(&a, start), "it does not know");

        attempt(&mut a, &mut server, start);

        assert!(leads(&a, start));
    }
}
