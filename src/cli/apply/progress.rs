//! What is seen while changes are made: a line for each on stdout, and on a terminal how far it is.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::output::{self, green, printable},
    model::NodeId,
    plan::{Difference, Field, PolicyKey},
    tailnet::{
        Failure, Notification, PolicyReport, Recorded, Reporter, Retry, TailnetReport, Term,
    },
};

/// Prints what is changed as it happens.
#[derive(Debug)]
pub(super) struct Progress {
    /// How many changes there are to be.
    total: usize,
    color: bool,
    /// Whether the line that moves is shown.
    moves: bool,
    /// Cancelled when nobody reads what is printed any more.
    stop: CancellationToken,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    made: BTreeSet<(NodeId, Field)>,
    failures: BTreeSet<(String, Field)>,
}

/// Cells of the bar.
const WIDTH: usize = 24;

impl Progress {
    pub fn new(total: usize, color: bool, stop: CancellationToken) -> Self {
        let progress = Self {
            total,
            color,
            moves: io::stderr().is_terminal(),
            stop,
            seen: Mutex::default(),
        };
        progress.draw(&progress.lock());
        progress
    }

    /// The changes that were made, at the end.
    pub fn made(&self) -> BTreeSet<(NodeId, Field)> {
        let seen = self.lock();
        self.wipe();
        seen.made.clone()
    }

    fn changed(&self, difference: &Difference) {
        let change = difference.change.to_string();
        let line = printable(&format!("{} {change}", difference.device));
        let line = green(&line, self.color) + "\n";
        let mut seen = self.lock();
        let field = difference.change.field();
        seen.made.insert((difference.node.clone(), field.clone()));
        seen.failures.remove(&(difference.device.clone(), field));
        self.wipe();
        if output::print_to_the_end(&line).is_err() {
            // Nobody sees any more what happens.
            self.stop.cancel();
        }
        self.draw(&seen);
    }

    fn failed(&self, device: &str, field: &Field, failure: &Failure) {
        let mut seen = self.lock();
        // Each policy that wishes it is told of it.
        if !seen.failures.insert((device.to_owned(), field.clone())) {
            return;
        }
        let next = match failure.retry {
            Retry::Never => "refused",
            Retry::Later | Retry::After(_) => "failed, and is tried again",
        };
        self.wipe();
        let line = printable(&format!("{device} {field} {next}: {}", failure.message));
        eprintln!("{line}");
        self.draw(&seen);
    }

    /// Without a terminal in the end there is nobody to tell, so that what fails here is no failure.
    fn draw(&self, seen: &Seen) {
        if !self.moves || self.total == 0 {
            return;
        }
        let done = seen.made.len().min(self.total);
        let full = WIDTH * done / self.total;
        let bar = "#".repeat(full) + &"-".repeat(WIDTH - full);
        let failures = match seen.failures.len() {
            0 => String::new(),
            many => format!(", {many} failing"),
        };
        let _ = write!(
            io::stderr(),
            "\r\u{1b}[K[{bar}] {done} of {} changes{failures}",
            self.total
        );
    }

    fn wipe(&self) {
        if self.moves {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
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
        Recorded::Yes
    }

    async fn tailnet(&self, _: Term, _: &TailnetReport) -> bool {
        true
    }

    async fn notify(&self, _: Term, key: &PolicyKey, notification: &Notification) {
        match notification {
            // Each policy that wishes it is told of it.
            Notification::Changed(difference) if difference.owner == *key => {
                self.changed(difference);
            }
            Notification::Failed {
                device,
                field,
                failure,
            } => self.failed(device, field, failure),
            // What is held was shown before.
            Notification::Changed(_)
            | Notification::Held(_)
            | Notification::Approved(_)
            | Notification::Missed(_)
            | Notification::Flapping { .. }
            | Notification::Refused(_) => {}
        }
    }
}
