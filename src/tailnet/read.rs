//! Reads of one kind of one device: of the device itself, of its routes, or of its attributes.

use std::time::Duration;

use super::failure::Backoff;

/// When it was read last, whether it must be read again, and how long to wait after failed reads.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// It must be read again, whatever the age of the last read.
    required: bool,
    /// When it was read last, if that read still counts.
    at: Option<Duration>,
    backoff: Option<Box<Backoff>>,
}

impl Read {
    /// It must be read before anything that depends on it.
    pub const fn require(&mut self) {
        self.required = true;
    }

    pub const fn is_required(&self) -> bool {
        self.required
    }

    /// Something else shows what the read was required for. Returns whether it was.
    pub const fn satisfy(&mut self) -> bool {
        std::mem::replace(&mut self.required, false)
    }

    /// A read that was made at this time has succeeded.
    pub fn succeeded(&mut self, at: Duration) {
        // A success ends the backoff: the next failure is a first one again.
        *self = Self {
            required: false,
            at: Some(at),
            backoff: None,
        };
    }

    /// The read has failed, and waits.
    pub fn failed(&mut self, backoff: Backoff) {
        self.backoff = Some(Box::new(backoff));
    }

    /// The last read no longer counts, as something was written since.
    pub const fn outdate(&mut self) {
        self.at = None;
    }

    /// When it was read last, if that read still counts.
    pub const fn at(&self) -> Option<Duration> {
        self.at
    }

    /// Whether it was read within this time.
    pub fn is_fresh(&self, fresh_for: Duration, now: Duration) -> bool {
        self.at.is_some_and(|at| now < at + fresh_for)
    }

    /// The last failure, if it was not read successfully since.
    pub fn backoff(&self) -> Option<&Backoff> {
        self.backoff.as_deref()
    }

    /// When it is read again after a failure; `None` if it may be read now.
    pub fn retry_at(&self, now: Duration) -> Option<Duration> {
        let backoff = self.backoff.as_ref()?;
        (!backoff.is_over(now)).then_some(backoff.retry_at)
    }

    /// Forgets the failure if the read may be repeated now.
    pub fn drop_backoff_if_over(&mut self, now: Duration) {
        self.backoff.take_if(|backoff| backoff.is_over(now));
    }

    /// Forgets the failure.
    pub fn forget_backoff(&mut self) {
        self.backoff = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failed(retry_at: Duration) -> Read {
        let mut read = Read::default();
        read.failed(Backoff::example(retry_at));
        read
    }

    #[test]
    fn a_failed_read_waits_and_a_successful_one_ends_the_wait() {
        let mut read = failed(at(9));
        read.require();
        assert_eq!(
            (read.retry_at(at(8)), read.retry_at(at(9))),
            (Some(at(9)), None)
        );
        read.succeeded(at(10));
        assert!(!read.is_required() && read.backoff().is_none());
    }

    #[test]
    fn a_failure_is_forgotten_only_once_its_wait_is_over() {
        let mut read = failed(at(9));
        read.drop_backoff_if_over(at(8));
        assert!(read.backoff().is_some());
        read.drop_backoff_if_over(at(9));
        assert!(read.backoff().is_none());
    }

    #[test]
    fn a_read_is_fresh_for_a_while_and_not_after_a_write() {
        let mut read = Read::default();
        assert!(!read.is_fresh(at(5), at(0)));
        read.succeeded(at(10));
        assert!(read.is_fresh(at(5), at(14)) && !read.is_fresh(at(5), at(15)));
        read.outdate();
        assert!(!read.is_fresh(at(5), at(11)) && read.at().is_none());
    }

    #[test]
    fn what_was_required_is_satisfied_once() {
        let mut read = Read::default();
        assert!(!read.satisfy());
        read.require();
        assert!(read.satisfy() && !read.satisfy());
    }
}
