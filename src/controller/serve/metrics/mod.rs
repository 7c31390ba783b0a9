//! The metrics of the controller. Labels are bounded: no names of devices, and none of policies unless an operator
//! asks for some ([`by_policy`]).
//!
//! Values are kept as they are observed, and a scrape writes them. What a process does, each process counts. The state
//! of tailnets and policies has series only on the leader: a standby knows it from an earlier time, or not at all.

mod by_policy;
pub(super) mod definition;
mod failures;
mod page;
mod policies;
mod process;
mod tailnet;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};

use self::{
    by_policy::PolicyMetrics,
    definition::{self as define},
    page::Page,
    policies::PolicyCounts,
    process::Process,
    tailnet::Tailnets,
};
pub(in crate::controller) use self::{
    failures::{Rejection, StatusFailure},
    tailnet::TailnetMetrics,
};
use crate::{
    controller::{election::Leadership, serve::traces, watch::readiness::Readiness},
    plan::PolicyKey,
    tailnet::PolicyReport,
    tailscale::{Bucket, Observation, Observer},
};

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    values: Arc<Values>,
}

#[derive(Debug)]
struct Values {
    tailnets: Mutex<Tailnets>,
    policies: PolicyCounts,
    by_policy: PolicyMetrics,
    status_writes: AtomicU64,
    status_failures: [AtomicU64; StatusFailure::ALL.len()],
    webhook_rejections: [AtomicU64; Rejection::ALL.len()],
    /// Counts the failures of watches.
    readiness: Arc<Readiness>,
    /// The lease (`namespace/name`), and whether this process holds it. Until it is known, everything is shown.
    leadership: OnceLock<(String, Leadership)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(0, Arc::default())
    }
}

impl Metrics {
    /// All metrics, with series for at most so many policies.
    #[must_use]
    pub(in crate::controller) fn new(policies: usize, readiness: Arc<Readiness>) -> Self {
        let values = Arc::new(Values {
            tailnets: Mutex::default(),
            policies: PolicyCounts::default(),
            by_policy: PolicyMetrics::new(policies),
            status_writes: AtomicU64::default(),
            status_failures: Default::default(),
            webhook_rejections: Default::default(),
            readiness,
            leadership: OnceLock::new(),
        });
        // Without a prefix: the names of processes have none.
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&values)));
        Self { registry, values }
    }

    /// All metrics as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The process is a candidate for this lease (`namespace/name`).
    pub(in crate::controller) fn elects(&self, lease: String, leadership: Leadership) {
        // There is one election in the life of a process.
        let _ = self.values.leadership.set((lease, leadership));
    }

    /// A term of leadership begins or ends: what was reported before may no longer be true.
    pub(in crate::controller) fn forget_reports(&self) {
        self.values.policies.clear();
        self.values.by_policy.clear();
        for tailnet in self.values.tailnets().values() {
            tailnet.forget_report();
        }
    }

    /// The metrics of a tailnet with a resource, or from the environment.
    pub(in crate::controller) fn declare(&self, tailnet: &str) -> Arc<TailnetMetrics> {
        let mut tailnets = self.values.tailnets();
        let declared = tailnets.entry(tailnet.to_owned()).or_default();
        Arc::clone(declared)
    }

    /// The metrics of a tailnet, unless it is gone.
    pub(in crate::controller) fn tailnet(&self, name: &str) -> Option<Arc<TailnetMetrics>> {
        self.values.tailnets().get(name).map(Arc::clone)
    }

    /// The resource of a tailnet is gone, and its series go with it.
    pub(in crate::controller) fn tailnet_gone(&self, name: &str) {
        self.values.tailnets().remove(name);
    }

    /// Observes the requests of a tailnet, which take from this bucket.
    pub(in crate::controller) fn observer(&self, tailnet: &str, bucket: Arc<Bucket>) -> Observer {
        // A connection may be made while its tailnet is deleted. That must not bring the series back.
        let (name, tailnet) = (
            tailnet.to_owned(),
            self.tailnet(tailnet).unwrap_or_default(),
        );
        tailnet.takes_from(bucket);
        Arc::new(move |seen: &Observation| {
            tailnet.requested(seen);
            traces::requested(&name, seen);
        })
    }

    pub(in crate::controller) fn status_written(&self) {
        self.values.status_writes.fetch_add(1, Relaxed);
    }

    pub(in crate::controller) fn status_not_written(&self, why: StatusFailure) {
        self.values.status_failures[why as usize].fetch_add(1, Relaxed);
    }

    pub(in crate::controller) fn webhook_rejected(&self, why: Rejection) {
        self.values.webhook_rejections[why as usize].fetch_add(1, Relaxed);
    }

    /// The present state of a policy.
    pub(in crate::controller) fn policy(
        &self,
        tailnet: &str,
        key: &PolicyKey,
        conditions: &[Condition],
        report: &PolicyReport,
    ) {
        self.values
            .policies
            .report(tailnet, key, conditions, report);
    }

    /// The number of devices that a policy matches.
    pub(in crate::controller) fn policy_matches(&self, key: &PolicyKey, devices: u32) {
        self.values.by_policy.set(key, devices);
    }

    /// A policy is gone.
    pub(in crate::controller) fn policy_gone(&self, key: &PolicyKey) {
        self.values.policies.gone(key);
        self.values.by_policy.remove(key);
    }
}

impl Values {
    fn tailnets(&self) -> std::sync::MutexGuard<'_, Tailnets> {
        self.tailnets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_leader(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(&define::BUILD_INFO, |series| {
            let revision = option_env!("TSDP_REVISION").unwrap_or("unknown");
            series.info(&[env!("CARGO_PKG_VERSION"), revision])
        })?;
        page.metric(&define::LEADER, |series| match self.leadership.get() {
            Some((lease, leadership)) => {
                series.gauge(&[lease], &u64::from(leadership.term().is_some()))
            }
            None => Ok(()),
        })
    }

    fn leads(&self) -> bool {
        let leadership = self.leadership.get();
        leadership.is_none_or(|(_, leadership)| leadership.term().is_some())
    }

    fn write_kubernetes(&self, page: &mut Page<'_>) -> fmt::Result {
        page.metric(&define::STATUS_WRITES, |series| {
            series.counter(&[], &self.status_writes.load(Relaxed))
        })?;
        page.metric(&define::STATUS_WRITE_FAILURES, |series| {
            StatusFailure::ALL.iter().try_for_each(|why| {
                let count = self.status_failures[*why as usize].load(Relaxed);
                series.counter(&[why.as_str()], &count)
            })
        })?;
        page.metric(&define::WATCH_RESTARTS, |series| {
            let restarts = self.readiness.restarts();
            let mut restarts = restarts.iter();
            restarts.try_for_each(|(watch, count)| series.counter(&[watch], count))
        })?;
        page.metric(&define::WEBHOOK_REJECTIONS, |series| {
            Rejection::ALL.iter().try_for_each(|why| {
                let count = self.webhook_rejections[*why as usize].load(Relaxed);
                series.counter(&[why.as_str()], &count)
            })
        })
    }
}

impl Collector for Values {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.write_leader(&mut page)?;
        // The lock is not held while the page is written: observers must not wait for a scrape.
        let tailnets = self.tailnets().clone();
        if self.leads() {
            tailnet::write_reports(&mut page, &tailnets)?;
            self.policies.write(&mut page)?;
            self.by_policy.write(&mut page)?;
        }
        tailnet::write_activity(&mut page, &tailnets)?;
        self.write_kubernetes(&mut page)?;
        Process::read().map_or(Ok(()), |process| process.write(&mut page))
    }
}
