use std::time::Duration;

use jiff::Timestamp;

use super::{
    Failure, Now, Ticket,
    failure::{backoff, jittered},
};
use crate::model::Reason;

/// A poll in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub ticket: Ticket,
    /// The engine's revision when it was sent.
    pub at: u64,
}

/// When to poll, and the results of the last polls.
#[derive(Debug, Default)]
pub(super) struct Polling {
    next: Duration,
    asked: Option<Asked>,
    /// Poll again as soon as the poll in flight has ended.
    again: bool,
    /// The number of complete lists since the connection was made or the term began.
    seen: u64,
    failures: u32,
    failure: Option<Failure>,
    /// When the last complete list arrived.
    last: Duration,
    /// The same by the wall clock.
    polled_at: Option<Timestamp>,
    /// Until when no list is trusted, because one had lost many devices.
    doubted_until: Duration,
}

/// How soon after a list the next poll follows if the two must be compared.
const COMPARED_AFTER: Duration = Duration::from_secs(5);
/// How long a list counts as recent.
const JUST_READ: Duration = Duration::from_mins(1);
/// How long lists are not trusted after one that had lost many devices: the next ones may lack them too.
const DOUBTED_FOR: Duration = Duration::from_hours(1);

/// After this many failed polls in a row, policies report it; one lost answer is not worth a report.
const DOWN_AFTER: u32 = 3;

impl Polling {
    /// The number of complete lists since the connection was made or the term began.
    pub const fn lists(&self) -> u64 {
        self.seen
    }

    pub fn is_due(&self, now: Duration) -> bool {
        self.asked.is_none() && now >= self.next
    }

    pub fn asked(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.again = false;
    }

    /// The poll with this ticket; `None` if it was given up meanwhile.
    pub fn answered(&mut self, ticket: Ticket) -> Option<Asked> {
        self.asked.take_if(|asked| asked.ticket == ticket)
    }

    /// When the next poll is due; `None` while one is in flight.
    pub fn wake_at(&self) -> Option<Duration> {
        self.asked.is_none().then_some(self.next)
    }

    /// Whether the next poll comes at once anyway: it is due, or another one follows the one in flight.
    pub fn comes_at_once(&self, now: Duration) -> bool {
        self.again || self.is_due(now)
    }

    /// Polls at once. The poll in flight may be older than the change that must be observed, so another one
    /// follows it.
    pub fn poll_now(&mut self, now: Duration) {
        self.next = self.next.min(now);
        self.again = self.asked.is_some();
    }

    /// Polls again shortly after the last list, as only two lists can be compared.
    pub fn compare_soon(&mut self) {
        self.next = self.next.min(self.last + COMPARED_AFTER);
    }

    /// Polls, unless a poll of at least this revision is in flight.
    pub fn begin_list(&mut self, now: Duration, answers: u64) {
        if self.asked.is_none_or(|asked| asked.at < answers) {
            self.poll_now(now);
        }
    }

    /// Forgets all lists, and polls at once.
    pub fn restart(&mut self, now: Duration) {
        *self = Self {
            next: now,
            doubted_until: self.doubted_until,
            ..Self::default()
        };
    }

    pub fn succeeded(&mut self, now: Now, interval: Duration, rng: &mut fastrand::Rng) {
        self.polled_at = Some(now.wall);
        let now = now.monotonic;
        self.seen += 1;
        self.failures = 0;
        self.failure = None;
        self.last = now;
        self.next = now;
        // A poll that was requested while this list was on its way may be about something newer.
        if !self.again {
            self.next += jittered(interval, rng);
        }
    }

    pub fn failed(&mut self, now: Duration, failure: Failure, rng: &mut fastrand::Rng) {
        self.failures = self.failures.saturating_add(1);
        let pause = match failure.retry {
            super::Retry::After(pause) => pause,
            _ => Duration::ZERO,
        };
        self.next = now + backoff(self.failures, rng).max(pause);
        // One outage is reported once: further failures of the same kind differ only by the request id.
        if self.failure.as_ref().map(|before| before.reason) != Some(failure.reason) {
            self.failure = Some(failure);
        }
    }

    /// The circuit breaker: while polls fail, nothing is written.
    pub fn is_closed(&self) -> bool {
        self.seen > 0 && self.failures == 0
    }

    /// When the last complete list arrived.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// When the last complete list arrived, by the wall clock; `None` before the first one.
    pub const fn polled_at(&self) -> Option<Timestamp> {
        self.polled_at
    }

    /// Trusts no list for a while.
    pub fn doubt(&mut self) {
        self.doubted_until = self.last + DOUBTED_FOR;
    }

    /// Whether the last list can be trusted to delete a device. The first list cannot: there is none to
    /// compare it with.
    pub fn is_trusted(&self, now: Duration) -> bool {
        self.is_closed()
            && self.seen > 1
            && now >= self.doubted_until
            && now < self.last + JUST_READ
    }

    /// The failure that policies report, if any.
    pub fn outage(&self) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| {
            self.seen == 0
                || self.failures >= DOWN_AFTER
                // A rejected credential does not pass by itself, so it is reported at once.
                || matches!(
                    failure.reason,
                    Reason::CredentialRejected | Reason::Forbidden
                )
        })
    }

    /// The failure after which a run of an approved plan gives up.
    pub fn gave_up(&self) -> Option<&Failure> {
        self.failure.as_ref().filter(|failure| {
            self.failures >= DOWN_AFTER
                || matches!(
                    failure.reason,
                    Reason::CredentialRejected | Reason::CredentialsMissing | Reason::Forbidden
                )
        })
    }

    /// The last failure; the tailnet's own status reports even the first one.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailnet::Retry;

    const INTERVAL: Duration = Duration::from_mins(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn moment(seconds: u64) -> Now {
        Now {
            monotonic: at(seconds),
            wall: Timestamp::UNIX_EPOCH + at(seconds),
        }
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    fn failure(reason: Reason, message: &str) -> Failure {
        Failure {
            reason,
            message: message.to_owned(),
            retry: Retry::Later,
            unknown_outcome: false,
        }
    }

    fn asked(ticket: u64, revision: u64) -> Asked {
        Asked {
            ticket: Ticket(ticket),
            at: revision,
        }
    }

    /// So many lists, the last one at this second.
    fn polled(lists: u64, last: u64) -> Polling {
        let mut polling = Polling::default();
        for _ in 0..lists {
            polling.succeeded(moment(last), INTERVAL, &mut rng());
        }
        polling
    }

    #[test]
    fn one_poll_is_in_flight_at_a_time_and_a_request_for_another_follows_it() {
        let mut polling = Polling::default();
        assert!(polling.is_due(at(0)));
        polling.asked(asked(1, 0));
        assert!(!polling.is_due(at(9)) && polling.wake_at().is_none());
        polling.poll_now(at(9));
        assert!(polling.comes_at_once(at(9)));
        assert!(polling.answered(Ticket(7)).is_none());
        assert!(polling.answered(Ticket(1)).is_some());
        polling.succeeded(moment(10), INTERVAL, &mut rng());
        assert_eq!(polling.wake_at(), Some(at(10)));
    }

    #[test]
    fn polls_are_spread_around_the_interval() {
        let next = polled(1, 0).wake_at().unwrap();
        assert!(next >= INTERVAL.mul_f64(0.8) && next <= INTERVAL.mul_f64(1.2));
    }

    #[test]
    fn lists_to_compare_follow_soon() {
        let mut polling = polled(1, 100);
        polling.compare_soon();
        assert_eq!(polling.wake_at(), Some(at(100) + COMPARED_AFTER));
    }

    #[test]
    fn a_poll_that_shows_all_answers_is_not_repeated() {
        let mut polling = Polling::default();
        polling.asked(asked(1, 5));
        polling.begin_list(at(1), 5);
        assert!(!polling.comes_at_once(at(1)));
        polling.begin_list(at(1), 6);
        assert!(polling.comes_at_once(at(1)));
    }

    #[test]
    fn one_lost_answer_opens_the_circuit_and_is_no_outage() {
        let mut polling = polled(2, 0);
        for number in 1..=DOWN_AFTER {
            assert!(polling.outage().is_none());
            let lost = failure(Reason::ApiUnreachable, &number.to_string());
            polling.failed(at(1), lost, &mut rng());
            assert!(!polling.is_closed());
        }
        // The request ids of later failures are no news.
        let outage = polling.outage().map(|failure| failure.message.as_str());
        assert_eq!(outage, Some("1"));
        assert!(polling.gave_up().is_some());
        polling.succeeded(moment(2), INTERVAL, &mut rng());
        assert!(polling.is_closed() && polling.failure().is_none());
    }

    #[test]
    fn a_rejected_credential_is_an_outage_at_once_and_so_is_every_failure_of_the_first_list() {
        let mut polling = polled(1, 0);
        let rejected = failure(Reason::CredentialRejected, "");
        polling.failed(at(1), rejected, &mut rng());
        assert!(polling.outage().is_some() && polling.gave_up().is_some());
        let mut first = Polling::default();
        let lost = failure(Reason::ApiUnreachable, "");
        first.failed(at(1), lost, &mut rng());
        assert!(first.outage().is_some() && first.gave_up().is_none());
    }

    #[test]
    fn the_pause_that_the_api_asks_for_is_kept() {
        let mut polling = polled(1, 0);
        let limited = Failure {
            retry: Retry::After(at(500)),
            ..failure(Reason::RateLimited, "")
        };
        polling.failed(at(1), limited, &mut rng());
        assert_eq!(polling.wake_at(), Some(at(501)));
    }

    #[test]
    fn only_the_second_of_two_recent_lists_can_be_trusted() {
        assert!(!polled(1, 100).is_trusted(at(101)));
        let mut polling = polled(2, 100);
        assert!(polling.is_trusted(at(101)));
        assert!(!polling.is_trusted(at(100) + JUST_READ));
        polling.doubt();
        assert!(!polling.is_trusted(at(101)));
        polling.restart(at(200));
        assert!(polling.lists() == 0 && polling.is_due(at(200)));
        for seconds in [300, 3700] {
            polling.succeeded(moment(seconds), INTERVAL, &mut rng());
        }
        assert!(polling.is_trusted(at(3701)));
        let mut doubted = polled(2, 100);
        doubted.doubt();
        doubted.restart(at(200));
        for _ in 0..2 {
            doubted.succeeded(moment(300), INTERVAL, &mut rng());
        }
        assert!(!doubted.is_trusted(at(301)));
    }
}
