//! The queue of reports to write: of each policy the newest, one at a time.
//!
//! A report belongs to a term of leadership and to the tailnet of its engine. At the end of the term the
//! queue is emptied. A policy that leaves the tailnet takes its report with it, even one that is being
//! written: the engine that has the policy next has newer facts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::{Instrument as _, info_span};

use super::{
    Input, PolicyReport, Recorded, Reporter, TailnetReport, Term,
    report_retries::{Retries, Subject},
};
use crate::plan::PolicyKey;

/// The number of reports that are written at once.
const WRITERS: usize = 8;
/// How soon the status of the tailnet follows those of its policies.
const RECOUNTED_AFTER: Duration = Duration::from_secs(5);

/// Reports to write: of each policy at most the newest, and only one at a time.
#[derive(Default)]
pub(super) struct Reports {
    waiting: BTreeMap<PolicyKey, PolicyReport>,
    tailnet: Option<TailnetReport>,
    /// The last report of the tailnet, written or not.
    last_tailnet: Option<TailnetReport>,
    /// Whether it is written again in a moment.
    recounts: bool,
    busy: BTreeMap<PolicyKey, Writer>,
    tailnet_busy: bool,
    writers: JoinSet<Written>,
    started: u64,
    retries: Retries,
}

/// A writer at work.
struct Writer {
    /// Distinguishes it from a later writer for a policy of the same name.
    number: u64,
    task: AbortHandle,
}

/// A report that a writer has finished, and whether it is recorded.
pub(super) enum Written {
    Policy(u64, PolicyKey, Box<PolicyReport>, Recorded),
    Tailnet(Box<TailnetReport>, bool),
    /// No report: the status of the tailnet may have to count its policies again.
    Recount,
    /// No report: a backoff has ended.
    Nothing,
}

impl Reports {
    /// Takes the report of a policy; it replaces an earlier one that still waits.
    pub fn put_policy(&mut self, key: PolicyKey, report: PolicyReport) {
        self.waiting.insert(key, report);
    }

    /// Takes the report of the tailnet; it replaces an earlier one that still waits.
    pub fn put_tailnet(&mut self, report: TailnetReport) {
        self.last_tailnet = Some(report.clone());
        self.tailnet = Some(report);
    }

    /// Drops everything, and aborts the writers at work.
    pub fn clear(&mut self) {
        self.retries = Retries::default();
        // It belongs to a term that is over.
        self.last_tailnet = None;
        if !self.are_recorded() {
            *self = Self {
                // The numbers go on, so that an aborted writer is never taken for a later one.
                started: self.started,
                ..Self::default()
            };
        }
    }

    /// Drops the report of a policy that was deleted, or belongs to another tailnet now.
    pub fn forget(&mut self, key: &PolicyKey) {
        self.waiting.remove(key);
        self.retries.forget(&Some(key.clone()));
        if let Some(writer) = self.busy.remove(key) {
            writer.task.abort();
        }
    }

    /// Whether no report waits or is being written.
    pub fn are_recorded(&self) -> bool {
        self.waiting.is_empty()
            && self.tailnet.is_none()
            && self.busy.is_empty()
            && !self.tailnet_busy
    }

    /// The number of reports of policies that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Starts to write the waiting reports, as far as there are writers.
    pub fn write<R: Reporter>(&mut self, term: Term, reporter: &Arc<R>) {
        let now = Instant::now();
        if !self.tailnet_busy
            && self.tailnet.is_some()
            && self.retries.allow_any(self.busy.len(), now)
            && self.retries.allow(&None, now)
            && let Some(report) = self.tailnet.take()
        {
            self.tailnet_busy = true;
            let reporter = Arc::clone(reporter);
            self.writers.spawn(async move {
                let recorded = reporter.tailnet(term, &report).await;
                Written::Tailnet(Box::new(report), recorded)
            });
        }
        while let Some(key) = self.next_policy(now) {
            if let Some(report) = self.waiting.remove(&key) {
                self.start(term, reporter, key, report);
            }
        }
    }

    fn next_policy(&self, now: Instant) -> Option<PolicyKey> {
        let writing = self.busy.len() + usize::from(self.tailnet_busy);
        if self.busy.len() >= WRITERS || !self.retries.allow_any(writing, now) {
            return None;
        }
        self.waiting
            .keys()
            .find(|key| {
                let subject = Some((*key).clone());
                // One write at a time for each policy: the newer report must not be overtaken.
                !self.busy.contains_key(*key) && self.retries.allow(&subject, now)
            })
            .cloned()
    }

    fn start<R: Reporter>(
        &mut self,
        term: Term,
        reporter: &Arc<R>,
        key: PolicyKey,
        report: PolicyReport,
    ) {
        self.started += 1;
        let number = self.started;
        let reporter = Arc::clone(reporter);
        let span = info_span!("reconcile", policy = %key, generation = report.generation);
        let policy = key.clone();
        let write = async move {
            let recorded = reporter.policy(term, &policy, &report).await;
            Written::Policy(number, policy, Box::new(report), recorded)
        };
        let task = self.writers.spawn(write.instrument(span));
        self.busy.insert(key, Writer { number, task });
    }

    /// Waits for a writer to finish; `None` if none is at work.
    pub async fn join_next(&mut self) -> Option<Written> {
        // Aborted writers have no result.
        loop {
            if let Ok(written) = self.writers.join_next().await? {
                return Some(written);
            }
        }
    }

    /// Takes a finished writer. Returns the input for the engine if the report is recorded. A report that is
    /// not recorded waits again, unless a newer one does.
    pub fn finish(&mut self, written: Written) -> Option<Input> {
        match written {
            Written::Nothing => None,
            Written::Recount => {
                self.recounts = false;
                if self.tailnet.is_none() {
                    self.tailnet.clone_from(&self.last_tailnet);
                }
                None
            }
            Written::Tailnet(report, recorded) => {
                self.tailnet_busy = false;
                self.note(None, recorded);
                if recorded {
                    return Some(Input::TailnetRecorded(report.revision));
                }
                // Only if no newer report waits.
                self.tailnet.get_or_insert(*report);
                None
            }
            Written::Policy(number, key, report, recorded) => {
                // If the policy was forgotten meanwhile, this is the result of an earlier writer.
                let ours = self.busy.get(&key).is_some_and(|it| it.number == number);
                if !ours {
                    return None;
                }
                self.busy.remove(&key);
                self.note(Some(key.clone()), recorded != Recorded::No);
                match recorded {
                    Recorded::Yes => {
                        self.recount_later();
                        let PolicyReport { uid, record, .. } = *report;
                        return Some(Input::Recorded { key, uid, record });
                    }
                    // The record is gone with the object: nothing waits for it.
                    Recorded::Gone => {}
                    Recorded::No => {
                        self.waiting.entry(key).or_insert(*report);
                    }
                }
                None
            }
        }
    }

    /// The status of the tailnet counts the policies that are not ready, as their statuses say. It follows them
    /// in a moment, so that a rollout does not cost one more write for each policy.
    fn recount_later(&mut self) {
        if !std::mem::replace(&mut self.recounts, true) {
            let again = Instant::now() + RECOUNTED_AFTER;
            self.writers.spawn(async move {
                sleep_until(again).await;
                Written::Recount
            });
        }
    }

    /// Notes whether a report was written. A failed one is tried again after a backoff.
    fn note(&mut self, subject: Subject, written: bool) {
        if written {
            self.retries.succeeded(&subject);
        } else {
            let again = self.retries.failed(subject, Instant::now());
            self.writers.spawn(async move {
                sleep_until(again).await;
                Written::Nothing
            });
        }
    }
}
