//! Reports on their way to where they are kept: of each policy the newest, and one at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;
use tracing::{Instrument as _, info_span};

use super::{PolicyReport, Reporter, TailnetReport};
use crate::plan::PolicyKey;

/// Reports that are being written at once.
const WRITERS: usize = 8;
/// Before a report is tried again that could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Reports to write: of each policy at most the newest, and only one at a time.
#[derive(Default)]
pub(super) struct Reports {
    waiting: BTreeMap<PolicyKey, PolicyReport>,
    tailnet: Option<TailnetReport>,
    busy: BTreeSet<PolicyKey>,
    tailnet_busy: bool,
    writers: JoinSet<Written>,
}

/// A report that a writer is done with, and whether it is recorded.
pub(super) enum Written {
    Policy(PolicyKey, Box<PolicyReport>, bool),
    Tailnet(Box<TailnetReport>, bool),
}

impl Reports {
    /// Takes the report of a policy, in place of an earlier one that still waits.
    pub fn put_policy(&mut self, key: PolicyKey, report: PolicyReport) {
        self.waiting.insert(key, report);
    }

    /// Takes the report of the tailnet, in place of an earlier one that still waits.
    pub fn put_tailnet(&mut self, report: TailnetReport) {
        self.tailnet = Some(report);
    }

    /// Whether nothing waits or is under way.
    pub fn are_kept(&self) -> bool {
        self.waiting.is_empty()
            && self.tailnet.is_none()
            && self.busy.is_empty()
            && !self.tailnet_busy
    }

    /// Starts to write what waits, as far as there are writers.
    pub fn write<R: Reporter>(&mut self, reporter: &Arc<R>) {
        if !self.tailnet_busy
            && let Some(report) = self.tailnet.take()
        {
            self.tailnet_busy = true;
            let reporter = Arc::clone(reporter);
            self.writers.spawn(async move {
                let kept = reporter.tailnet(&report).await;
                again_later(kept).await;
                Written::Tailnet(Box::new(report), kept)
            });
        }
        while self.busy.len() < WRITERS
            && let Some((key, report)) = self.next()
        {
            self.busy.insert(key.clone());
            let reporter = Arc::clone(reporter);
            let span = info_span!("reconcile", policy = %key, generation = report.generation);
            let write = async move {
                let kept = reporter.policy(&key, &report).await;
                again_later(kept).await;
                Written::Policy(key, Box::new(report), kept)
            };
            self.writers.spawn(write.instrument(span));
        }
    }

    /// Waits for a writer that is done; `None` where none is at work.
    pub async fn join_next(&mut self) -> Option<Written> {
        // A writer that panicked has written nothing that could be told.
        self.writers.join_next().await?.ok()
    }

    /// Takes note of a writer that is done: the report of a policy that is recorded now. One that
    /// is not recorded waits again, unless a newer one does.
    pub fn finish(&mut self, written: Written) -> Option<(PolicyKey, PolicyReport)> {
        match written {
            Written::Tailnet(report, kept) => {
                self.tailnet_busy = false;
                if !kept {
                    self.tailnet.get_or_insert(*report);
                }
                None
            }
            Written::Policy(key, report, kept) => {
                self.busy.remove(&key);
                if kept {
                    return Some((key, *report));
                }
                self.waiting.entry(key).or_insert(*report);
                None
            }
        }
    }

    fn next(&mut self) -> Option<(PolicyKey, PolicyReport)> {
        let key = self
            .waiting
            .keys()
            .find(|key| !self.busy.contains(*key))?
            .clone();
        self.waiting.remove_entry(&key)
    }
}

async fn again_later(kept: bool) {
    if !kept {
        tokio::time::sleep(WRITE_AGAIN).await;
    }
}
