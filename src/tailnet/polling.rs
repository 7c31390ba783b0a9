use std::time::Duration;

use super::{
    Failure, Ticket,
    failure::{backoff, jittered},
};
use crate::api::Reason;

/// A request for the list that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub ticket: Ticket,
    /// The engine's count of answers when it was asked for.
    pub at: u64,
}

/// When to ask for the list, and how the last requests for it went.
#[derive(Debug, Default)]
pub(super) struct Polling {
    next: Duration,
    asked: Option<Asked>,
    /// Another list is wanted as soon as the one under way has come.
    again: bool,
    /// Complete lists seen since the connection was made or the lead was taken.
    pub seen: u64,
    failures: u32,
    failure: Option<Failure>,
    /// When the last complete list came.
    last: Duration,
    /// Until when no list is trusted, as one had lost many devices.
    doubted_until: Duration,
}

/// How soon after a list the next one is asked for, where the two have to be compared.
const COMPARED_AFTER: Duration = Duration::from_secs(5);
/// How long a list counts as just read.
const JUST_READ: Duration = Duration::from_mins(1);
/// How long lists are doubted after one that had lost many devices: the next ones may lack them too.
const DOUBTED_FOR: Duration = Duration::from_hours(1);

/// After so many lists in a row have failed, policies say so; one lost answer is no news.
const DOWN_AFTER: u32 = 3;

impl Polling {
    pub fn is_due(&self, now: Duration) -> bool {
        self.asked.is_none() && now >= self.next
    }

    pub fn asked(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.again = false;
    }

    /// The request that this ticket answers; `None` if it was given up meanwhile.
    pub fn answered(&mut self, ticket: Ticket) -> Option<Asked> {
        self.asked.take_if(|asked| asked.ticket == ticket)
    }

    /// When the next list is due; `None` while one is under way.
    pub fn wake_at(&self) -> Option<Duration> {
        self.asked.is_none().then_some(self.next)
    }

    /// Whether a list that is asked for now comes without anybody asking: it is due, or another one follows
    /// the one under way.
    pub fn comes_at_once(&self, now: Duration) -> bool {
        self.again || self.is_due(now)
    }

    /// Asks for a list at once. One that is under way may be older than what is to be seen, so
    /// another one follows it.
    pub fn poll_now(&mut self, now: Duration) {
        self.next = self.next.min(now);
        self.again = self.asked.is_some();
    }

    /// Asks for another list shortly after the last one, as only two can tell.
    pub fn compare_soon(&mut self) {
        self.next = self.next.min(self.last + COMPARED_AFTER);
    }

    /// Asks for a list that is at least as new as this count of answers.
    pub fn begin_list(&mut self, now: Duration, answers: u64) {
        if self.asked.is_none_or(|asked| asked.at < answers) {
            self.poll_now(now);
        }
    }

    /// Forgets what was seen so far, and asks at once.
    pub fn restart(&mut self, now: Duration) {
        *self = Self {
            next: now,
            doubted_until: self.doubted_until,
            ..Self::default()
        };
    }

    pub fn succeeded(&mut self, now: Duration, interval: Duration, rng: &mut fastrand::Rng) {
        self.seen += 1;
        self.failures = 0;
        self.failure = None;
        self.last = now;
        self.next = now;
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
        // One outage is told once: the next failure of its kind differs by the request id alone.
        if self.failure.as_ref().map(|before| before.reason) != Some(failure.reason) {
            self.failure = Some(failure);
        }
    }

    /// The circuit: while lists fail, nothing is written.
    pub fn is_closed(&self) -> bool {
        self.seen > 0 && self.failures == 0
    }

    /// When the last complete list came.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// Lists are not trusted for a while.
    pub fn doubt(&mut self) {
        self.doubted_until = self.last + DOUBTED_FOR;
    }

    /// Whether the last list can be trusted so far that a device may be deleted for what it says. The
    /// first one can be compared with none.
    pub fn is_trusted(&self, now: Duration) -> bool {
        self.is_closed()
            && self.seen > 1
            && now >= self.doubted_until
            && now < self.last + JUST_READ
    }

    /// The failure that policies should tell, if they should.
    pub fn outage(&self) -> Option<&Failure> {
        let for_sure = |failure: &&Failure| {
            self.seen == 0
                || self.failures >= DOWN_AFTER
                || matches!(
                    failure.reason,
                    Reason::CredentialRejected | Reason::Forbidden
                )
        };
        self.failure.as_ref().filter(for_sure)
    }

    /// The failure after which whoever does not wait for ever gives up.
    pub fn gave_up(&self) -> Option<&Failure> {
        let for_good = |failure: &&Failure| {
            self.failures >= DOWN_AFTER
                || matches!(
                    failure.reason,
                    Reason::CredentialRejected | Reason::CredentialsMissing | Reason::Forbidden
                )
        };
        self.failure.as_ref().filter(for_good)
    }

    /// The last failure, told by the tailnet's own status from the first on.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}
