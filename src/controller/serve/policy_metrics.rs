//! Metrics with the names of policies. Each policy is a time series, so there are at most as many as an option allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::plan::PolicyKey;

/// The devices that each policy matches, for some policies.
#[derive(Debug)]
pub(super) struct PolicyMetrics {
    max: usize,
    matched: Family<PolicyLabels, Gauge>,
    omitted: Gauge,
    policies: Mutex<Policies>,
}

#[derive(Debug, Default)]
struct Policies {
    /// Those with a time series: the first ones that reported.
    shown: BTreeSet<PolicyKey>,
    /// The numbers of those without one, which the next free place needs.
    omitted: BTreeMap<PolicyKey, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    namespace: String,
    name: String,
}

impl From<&PolicyKey> for PolicyLabels {
    fn from(key: &PolicyKey) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl PolicyMetrics {
    /// For at most so many policies.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            matched: Family::default(),
            omitted: Gauge::default(),
            policies: Mutex::default(),
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        // An operator who did not ask for names of policies gets none, not even an empty family.
        if self.max == 0 {
            return;
        }
        let help = "Devices that the policy matches";
        registry.register("policy_matched_devices", help, self.matched.clone());
        let help =
            "Policies without a series of tsdp_policy_matched_devices, over --policy-metrics";
        registry.register("policy_metrics_omitted", help, self.omitted.clone());
    }

    /// A policy matches so many devices.
    pub fn set(&self, key: &PolicyKey, devices: i64) {
        if self.max == 0 {
            return;
        }
        let mut policies = self.lock();
        if !policies.shown.contains(key) && policies.shown.len() >= self.max {
            policies.omitted.insert(key.clone(), devices);
        } else {
            policies.shown.insert(key.clone());
            self.matched.get_or_create(&key.into()).set(devices);
        }
        self.count(&policies);
    }

    /// A policy is gone: another one takes its place.
    pub fn remove(&self, key: &PolicyKey) {
        let mut policies = self.lock();
        policies.omitted.remove(key);
        if policies.shown.remove(key) {
            self.matched.remove(&key.into());
            if let Some((next, devices)) = policies.omitted.pop_first() {
                self.matched.get_or_create(&(&next).into()).set(devices);
                policies.shown.insert(next);
            }
        }
        self.count(&policies);
    }

    fn count(&self, policies: &Policies) {
        let omitted = i64::try_from(policies.omitted.len());
        self.omitted.set(omitted.unwrap_or(i64::MAX));
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
        let metrics = Metrics::new(0);
        metrics.policy_matches(&key("a"), 3);
        assert!(!metrics.encode().contains("policy_m"));
    }

    #[test]
    fn series_are_bounded_and_a_free_place_is_taken() {
        let metrics = Metrics::new(2);
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
