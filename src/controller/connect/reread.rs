//! A new term of leadership starts from credentials that were read since it was won.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// How long a new leader waits before it reports that it cannot read a credential that it has read
/// before.
const REREAD_PATIENCE: Duration = Duration::from_secs(20);

/// Reads of the credential that a term of leadership requests.
pub(in crate::controller) struct Reread {
    asks: watch::Receiver<u64>,
    round: u64,
    /// Since when the round waits for the credential.
    waits: Option<Instant>,
    done: Box<dyn Fn(u64) + Send + Sync>,
}

impl Reread {
    /// The first round is the present one.
    pub fn new(mut asks: watch::Receiver<u64>, done: impl Fn(u64) + Send + Sync + 'static) -> Self {
        // Marked as seen: the first read serves this round, so `asked` must not return for it.
        let round = *asks.borrow_and_update();
        Self {
            round,
            asks,
            waits: Some(Instant::now()),
            done: Box::new(done),
        }
    }

    /// Waits for the next round; forever if there is no other.
    pub(super) async fn asked(&mut self) {
        if self.asks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.round = *self.asks.borrow_and_update();
        self.waits = Some(Instant::now());
    }

    /// The credential was read, or the wait timed out, and the engine has the result.
    pub(super) fn done(&mut self) {
        // A later edit of the Secret belongs to no round: nobody waits for it.
        if self.waits.take().is_some() {
            (self.done)(self.round);
        }
    }

    /// Whether the round waits for the credential.
    pub(super) fn is_awaited(&self) -> bool {
        self.waits.is_some()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.waits
            .is_some_and(|since| since.elapsed() > REREAD_PATIENCE)
    }
}
