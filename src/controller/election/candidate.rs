//! A candidate's view of the lease, and its next move. No I/O; the time is an argument.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::time::Instant;

use super::timings::Timings;

/// The request to send to the API server.
#[derive(Debug, PartialEq)]
pub(super) enum Move {
    /// Nothing: another candidate holds the lease.
    Wait,
    /// There is no lease: create one that we hold.
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
    /// Counts how often it has taken the lease: a renewal in time does not count.
    holds: u64,
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
            holds: 0,
        }
    }

    /// The end of our leadership unless it is renewed; none if we do not lead.
    pub(super) fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.leads_until.filter(|until| now < *until)
    }

    /// The number of our hold on the lease, and its end unless it is renewed.
    pub(super) fn lead(&self) -> Option<(u64, Instant)> {
        self.leads_until.map(|until| (self.holds, until))
    }

    /// Stops leading, regardless of the holder of the lease.
    pub(super) fn resign(&mut self) {
        self.leads_until = None;
    }

    /// The holder of the lease, as last seen.
    pub(super) fn holder(&self) -> Option<&str> {
        holder(&self.seen.as_ref()?.lease)
    }

    /// The lease as the API server has it; none if there is none.
    pub(super) fn saw(&mut self, lease: Option<Lease>, now: Instant) {
        let before = self.seen.take();
        self.seen = lease.map(|lease| {
            let since = match before {
                // The duration counts from when this content was first seen: no clock of another
                // machine is used.
                Some(seen) if seen.lease.spec == lease.spec => seen.since,
                _ => now,
            };
            Seen { lease, since }
        });
        // Whatever our last write returned: another candidate, or a person, has changed the holder.
        if self.holder() != Some(&self.identity) {
            self.leads_until = None;
        }
    }

    pub(super) fn next_move(&self, now: Instant, wall_clock: Timestamp) -> Move {
        let Some(seen) = &self.seen else {
            return Move::Create(self.held(&Lease::default(), wall_clock));
        };
        let free = match holder(&seen.lease) {
            // Released, or created by hand.
            None => true,
            Some(holder) => {
                // Ours without our knowing it: the response to the write was lost.
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
        if self.leads_until(sent).is_none() {
            self.holds += 1;
        }
        // The renew deadline ends before the lease does, so we stop before another candidate can start.
        self.leads_until = Some(sent + self.timings.renew_deadline());
        self.seen = Some(Seen { lease, since: sent });
    }

    /// The lease without a holder, so that another candidate may take it at once; none if it is not
    /// ours.
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

    /// The lease with us as its holder. The times in it are for people; no candidate uses them.
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
                // With its resourceVersion, so that the write fails if another candidate was
                // faster.
                ..before.metadata.clone()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(self.timings.seconds()),
                acquire_time: if renewal {
                    old.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                // Other fields stay, such as the strategy of a coordinated election.
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
            // A person may have removed it, or written a negative one.
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
mod tests;
