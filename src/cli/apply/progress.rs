//! Progress of an apply: a line on stdout for each change, and a bar on stderr if that is a terminal.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        output::{self, green, printable},
        status_line::StatusLine,
    },
    model::NodeId,
    plan::{Difference, Field, PolicyKey},
    tailnet::{
        Failure, Notification, PolicyReport, Recorded, Reporter, Retry, TailnetReport, Term,
    },
};

/// Prints each change as it happens.
#[derive(Debug)]
pub(super) struct Progress {
    /// The number of changes to make.
    total: usize,
    color: bool,
    /// The bar.
    bar: StatusLine,
    /// Cancelled when the reader of stdout is gone.
    stop: CancellationToken,
    seen: Mutex<Seen>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    made: BTreeSet<(NodeId, Field)>,
    failures: BTreeSet<(String, Field)>,
}

/// The bar's number of cells.
const BAR_WIDTH: usize = 24;

impl Progress {
    pub fn new(total: usize, color: bool, stop: CancellationToken) -> Self {
        let progress = Self {
            total,
            color,
            bar: StatusLine::new(),
            stop,
            seen: Mutex::default(),
            started: Instant::now(),
        };
        // At once, so that a slow first request does not look like a hang.
        progress.draw(&progress.lock());
        progress
    }

    /// Clears the bar, and returns the changes that were made.
    pub fn made(&self) -> BTreeSet<(NodeId, Field)> {
        let seen = self.lock();
        self.bar.wipe();
        seen.made.clone()
    }

    fn changed(&self, difference: &Difference) {
        let line = printable(&format!("{} {:#}", difference.device, difference.change));
        let line = green(&line, self.color) + "\n";
        let mut seen = self.lock();
        let field = difference.change.field();
        seen.made.insert((difference.node.clone(), field.clone()));
        // The engine retries, so a change that is made may have failed before.
        seen.failures.remove(&(difference.device.clone(), field));
        self.bar.wipe();
        if output::print_to_the_end(&line).is_err() {
            // The reader of stdout is gone, and an apply that no one observes must not go on.
            self.stop.cancel();
        }
        self.draw(&seen);
    }

    fn failed(&self, device: &str, field: &Field, failure: &Failure) {
        let mut seen = self.lock();
        // The engine notifies each policy that declares the field: print the failure once.
        if !seen.failures.insert((device.to_owned(), field.clone())) {
            return;
        }
        let next = match failure.retry {
            Retry::Never => "refused",
            Retry::Later | Retry::After(_) => "failed, and will be retried",
        };
        self.bar.wipe();
        let line = printable(&format!("{device} {field} {next}: {}", failure.message));
        eprintln!("{line}");
        self.draw(&seen);
    }

    fn draw(&self, seen: &Seen) {
        if self.total == 0 {
            return;
        }
        // Never more than all, as the subtraction below must not underflow.
        let done = seen.made.len().min(self.total);
        let full = BAR_WIDTH * done / self.total;
        let bar = "#".repeat(full) + &"-".repeat(BAR_WIDTH - full);
        let failures = match seen.failures.len() {
            0 => String::new(),
            many => format!(", {many} failing"),
        };
        let pace = pace(done, self.total, self.started.elapsed());
        self.bar.draw(&format!(
            "[{bar}] {done} of {} changes{failures}{pace}",
            self.total
        ));
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter for Progress {
    fn may_write(&self, _: Term) -> bool {
        !self.stop.is_cancelled()
    }

    async fn policy(&self, _: Term, _: &PolicyKey, _: &PolicyReport) -> Recorded {
        // Outside of a cluster there is no status to write, so nothing waits for it.
        Recorded::Yes
    }

    async fn tailnet(&self, _: Term, _: &TailnetReport) -> bool {
        true
    }

    async fn notify(&self, _: Term, key: &PolicyKey, notification: &Notification) {
        match notification {
            // The engine notifies each policy that declares the field: print the change once, for its owner.
            Notification::Changed(difference) if difference.owner == *key => {
                self.changed(difference);
            }
            Notification::Failed {
                device,
                field,
                failure,
            } => self.failed(device, field, failure),
            // The plan has already shown held changes.
            Notification::Changed(_)
            | Notification::Held(_)
            | Notification::Approved(_)
            | Notification::Missed(_)
            | Notification::Flapping { .. }
            | Notification::SignedIn { .. } => {}
        }
    }
}

/// `, 4.8 per second, about 13 s left`
fn pace(done: usize, total: usize, elapsed: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a tailnet has fewer changes than a float can count"
    )]
    let (done, left) = (done as f64, total.saturating_sub(done) as f64);
    let rate = done / elapsed.as_secs_f64();
    // The first few say nothing: a burst of them goes at once.
    if elapsed < Duration::from_secs(3) || done < 1.0 || left < 1.0 {
        return String::new();
    }
    let left = Duration::from_secs_f64(left / rate);
    format!(", {rate:.1} per second, about {} left", about(left))
}

/// `40 s`, `3 min`, `2 h`
pub(super) fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("{} s", seconds.max(1)),
        seconds @ ..6000 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_shown_once_it_means_something() {
        let after = |seconds| pace(40, 100, Duration::from_secs(seconds));
        assert_eq!(after(2), "");
        assert_eq!(after(10), ", 4.0 per second, about 15 s left");
        assert_eq!(after(200), ", 0.2 per second, about 5 min left");
        assert_eq!(pace(100, 100, Duration::from_secs(9)), "");
        assert_eq!(pace(0, 100, Duration::from_secs(9)), "");
    }
}
