//! Metrics with the names of policies. Each policy is a time series, so there are at most as many as an option allows.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use super::{
    definition::{MATCHED_DEVICES, METRICS_OMITTED},
    page::Page,
};
use crate::plan::PolicyKey;

/// The devices that each policy matches, for some policies.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    max: usize,
    policies: Mutex<Policies>,
}

#[derive(Debug, Default)]
struct Policies {
    /// The numbers of those with a time series: the first ones that reported.
    shown: BTreeMap<PolicyKey, u32>,
    /// The numbers of those without one, which the next free place needs.
    omitted: BTreeMap<PolicyKey, u32>,
}

impl PolicyMetrics {
    /// For at most so many policies.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            policies: Mutex::default(),
        }
    }

    /// A policy matches so many devices.
    pub fn set(&self, key: &PolicyKey, devices: u32) {
        if self.max == 0 {
            return;
        }
        let mut policies = self.lock();
        if !policies.shown.contains_key(key) && policies.shown.len() >= self.max {
            policies.omitted.insert(key.clone(), devices);
        } else {
            policies.shown.insert(key.clone(), devices);
        }
    }

    /// A policy is gone: another one takes its place.
    pub fn remove(&self, key: &PolicyKey) {
        let mut policies = self.lock();
        policies.omitted.remove(key);
        if policies.shown.remove(key).is_some()
            && let Some((next, devices)) = policies.omitted.pop_first()
        {
            policies.shown.insert(next, devices);
        }
    }

    /// Another process may lead from now on.
    pub fn clear(&self) {
        *self.lock() = Policies::default();
    }

    pub fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        // An operator who did not ask for names of policies gets none, not even an empty family.
        if self.max == 0 {
            return Ok(());
        }
        let policies = self.lock();
        page.metric(&MATCHED_DEVICES, |series| {
            policies
                .shown
                .iter()
                .try_for_each(|(key, devices)| series.gauge(&[&key.namespace, &key.name], devices))
        })?;
        page.metric(&METRICS_OMITTED, |series| {
            series.gauge(&[], &policies.omitted.len())
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::serve::metrics::Metrics;

    fn key(name: &str) -> PolicyKey {
        PolicyKey::new("network", name)
    }

    /// The lines about policies, as a scrape sees them.
    fn scraped(metrics: &Metrics) -> Vec<String> {
        let text = metrics.encode();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("tsdp_policy_m"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn policies_have_no_series_by_default() {
        let metrics = Metrics::new(0, std::sync::Arc::default());
        metrics.policy_matches(&key("a"), 3);
        assert!(!metrics.encode().contains("policy_m"));
    }

    #[test]
    fn series_are_bounded_and_a_free_place_is_taken() {
        let metrics = Metrics::new(2, std::sync::Arc::default());
        for (name, devices) in [("a", 3), ("b", 0), ("c", 7), ("d", 1), ("a", 4)] {
            metrics.policy_matches(&key(name), devices);
        }
        let series = |name: &str, devices: usize| {
            format!(
                "tsdp_policy_matched_devices{{namespace=\"network\",name=\"{name}\"}} {devices}"
            )
        };
        let mut lines = scraped(&metrics);
        lines.sort();
        assert_eq!(
            lines,
            [
                series("a", 4),
                series("b", 0),
                "tsdp_policy_metrics_omitted 2".to_owned()
            ]
        );
        for gone in ["a", "d", "unknown"] {
            metrics.policy_gone(&key(gone));
        }
        let mut lines = scraped(&metrics);
        lines.sort();
        assert_eq!(
            lines,
            [
                series("b", 0),
                series("c", 7),
                "tsdp_policy_metrics_omitted 0".to_owned()
            ]
        );
    }
}
