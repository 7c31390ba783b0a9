//! The policies by state, and their pending changes by reason. No series names a policy.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    definition::{PENDING_CHANGES, PENDING_DEVICES, POLICIES},
    page::Page,
};
use crate::{
    api::conditions::READY,
    plan::PolicyKey,
    tailnet::{PendingChanges, PolicyReport, State},
};

/// Counts policies as they report themselves: a scrape walks over reasons, and not over policies.
#[derive(Debug, Default)]
pub(super) struct PolicyCounts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// What each policy adds to the sums.
    policies: HashMap<PolicyKey, Counted>,
    ready: BTreeMap<ReadyLabels, usize>,
    pending: BTreeMap<(String, PendingLabels), Sum>,
}

/// What a policy adds to the sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counted {
    ready: Option<ReadyLabels>,
    tailnet: String,
    pending: Vec<(PendingLabels, Sum)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ReadyLabels {
    tailnet: String,
    ready: String,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PendingLabels {
    held: bool,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    changes: usize,
    devices: usize,
}

impl PolicyCounts {
    /// The present state of a policy.
    pub fn report(
        &self,
        tailnet: &str,
        key: &PolicyKey,
        conditions: &[Condition],
        report: &PolicyReport,
    ) {
        let ready = conditions.iter().find(|condition| condition.type_ == READY);
        let mut counts = self.lock();
        let before = counts.policies.get(key);
        let now = Counted {
            ready: ready.map(|ready| ReadyLabels {
                tailnet: tailnet.to_owned(),
                ready: ready.status.to_lowercase(),
                reason: ready.reason.clone(),
            }),
            tailnet: tailnet.to_owned(),
            pending: match pending(report) {
                Some(pending) => of(&pending),
                // While nothing can be read, the last numbers stay, as in the status.
                None => before.map(|it| it.pending.clone()).unwrap_or_default(),
            },
        };
        // Statuses are derived often, and seldom change.
        if before != Some(&now) {
            counts.replace(key, Some(now));
        }
    }

    /// A policy is gone.
    pub fn gone(&self, key: &PolicyKey) {
        self.lock().replace(key, None);
    }

    /// Another process may lead from now on.
    pub fn clear(&self) {
        *self.lock() = Counts::default();
    }

    pub fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        type Number = fn(&Sum) -> usize;
        let counts = self.lock();
        page.metric(&POLICIES, |series| {
            counts.ready.iter().try_for_each(|(labels, count)| {
                series.gauge(&[&labels.tailnet, &labels.ready, &labels.reason], count)
            })
        })?;
        let numbers: [(_, Number); 2] = [
            (&PENDING_CHANGES, |sum| sum.changes),
            (&PENDING_DEVICES, |sum| sum.devices),
        ];
        for (metric, number) in numbers {
            page.metric(metric, |series| {
                counts
                    .pending
                    .iter()
                    .try_for_each(|((tailnet, labels), sum)| {
                        let held = if labels.held { "true" } else { "false" };
                        series.gauge(&[tailnet, held, labels.reason], &number(sum))
                    })
            })?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn replace(&mut self, key: &PolicyKey, now: Option<Counted>) {
        if let Some(before) = self.policies.remove(key) {
            self.add(&before, |sum, by| *sum -= by);
        }
        if let Some(now) = now {
            self.add(&now, |sum, by| *sum += by);
            self.policies.insert(key.clone(), now);
        }
        // A series without a policy ends, and with it the last one of a deleted tailnet.
        self.ready.retain(|_, count| *count > 0);
        self.pending.retain(|_, sum| sum.changes > 0);
    }

    fn add(&mut self, counted: &Counted, apply: impl Fn(&mut usize, usize)) {
        if let Some(ready) = &counted.ready {
            apply(self.ready.entry(ready.clone()).or_default(), 1);
        }
        for (labels, by) in &counted.pending {
            let key = (counted.tailnet.clone(), *labels);
            let sum = self.pending.entry(key).or_default();
            apply(&mut sum.changes, by.changes);
            apply(&mut sum.devices, by.devices);
        }
    }
}

fn of(pending: &PendingChanges) -> Vec<(PendingLabels, Sum)> {
    let all = pending.iter().map(|it| {
        let labels = PendingLabels {
            held: it.held,
            reason: it.reason.as_str(),
        };
        let sum = Sum {
            changes: it.changes,
            devices: it.devices,
        };
        (labels, sum)
    });
    all.collect()
}

/// The pending changes of a policy; `None` if they cannot be known now.
fn pending(report: &PolicyReport) -> Option<PendingChanges> {
    let mut pending = PendingChanges::default();
    match &report.state {
        State::Unavailable(_) => return None,
        State::Selector(report) => return Some(report.pending.clone()),
        State::Bound(report) => {
            pending.add_device(report.differences.iter(), report.conflicts.len(), |field| {
                let mut failures = report.failures.iter();
                failures.find_map(|(of, failure)| {
                    of.as_ref()
                        .is_none_or(|of| of == field)
                        .then_some(failure.reason)
                })
            });
        }
        State::Unbound { differences, .. } => {
            pending.add_device(differences.iter(), 0, |_| None);
        }
        State::Invalid(_)
        | State::NotAllowed(_)
        | State::Starting
        | State::TooMany(_)
        | State::Deleting(_) => {}
    }
    Some(pending)
}
