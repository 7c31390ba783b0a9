//! The metrics of the controller. Labels are bounded: no names of devices, and none of policies unless an operator
//! asks for some ([`super::policy_metrics`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::policy_metrics::PolicyMetrics;
use crate::{
    api::conditions::READY,
    plan::{ChangeCause, Difference, Field, PolicyKey},
    tailnet::TailnetReport,
    tailscale::{Observation, Observer},
};

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    changes: Family<ChangeLabels, Counter>,
    status_writes: Counter,
    status_write_failures: Counter,
    devices: Family<TailnetLabels, Gauge>,
    policies: Family<TailnetLabels, Gauge>,
    reachable: Family<TailnetLabels, Gauge>,
    flapping: Family<TailnetLabels, Gauge>,
    unreadable: Family<TailnetLabels, Gauge>,
    readiness: Family<ReadinessLabels, Gauge>,
    by_policy: PolicyMetrics,
    /// The labels under which each policy is counted.
    counted: Mutex<HashMap<PolicyKey, ReadinessLabels>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    tailnet: String,
    endpoint: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    tailnet: String,
    field: String,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TailnetLabels {
    tailnet: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadinessLabels {
    tailnet: String,
    reason: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Metrics {
    /// All metrics, with series for at most so many policies.
    #[must_use]
    pub fn new(policies: usize) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("tsdp")),
            requests: Family::default(),
            changes: Family::default(),
            status_writes: Counter::default(),
            status_write_failures: Counter::default(),
            devices: Family::default(),
            policies: Family::default(),
            reachable: Family::default(),
            flapping: Family::default(),
            unreadable: Family::default(),
            readiness: Family::default(),
            by_policy: PolicyMetrics::new(policies),
            counted: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "api_requests";
        registry.register(name, "Requests to the Tailscale API", self.requests.clone());
        registry.register(
            "changes",
            "Settings changed, by field and cause",
            self.changes.clone(),
        );
        let help = "Status writes to the Kubernetes API";
        registry.register("status_writes", help, self.status_writes.clone());
        let help = "Status writes that the Kubernetes API refused or did not answer";
        let failures = self.status_write_failures.clone();
        registry.register("status_write_failures", help, failures);
        registry.register(
            "devices",
            "Devices of the tailnet, without those shared in from others",
            self.devices.clone(),
        );
        registry.register(
            "policies",
            "Policies that refer to the tailnet",
            self.policies.clone(),
        );
        let help = "1 while the controller can read the tailnet's devices, otherwise 0";
        registry.register("tailnet_reachable", help, self.reachable.clone());
        let help = "Devices whose own reports keep changing whether a selector matches them";
        registry.register("flapping_memberships", help, self.flapping.clone());
        let help = "Devices that the API reports in a form that cannot be read completely";
        registry.register("unreadable_devices", help, self.unreadable.clone());
        let help = "Policies, by the reason of their Ready condition";
        registry.register("policies_ready", help, self.readiness.clone());
        self.by_policy.register(&mut registry);
    }

    /// All metrics as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    pub(in crate::controller) fn observer(self: &Arc<Self>, tailnet: &str) -> Observer {
        let metrics = Arc::clone(self);
        let tailnet = tailnet.to_owned();
        Arc::new(move |seen: &Observation| {
            let labels = RequestLabels {
                tailnet: tailnet.clone(),
                endpoint: seen.endpoint.as_str().to_owned(),
                status: seen
                    .status
                    .map_or("none".to_owned(), |status| status.to_string()),
            };
            metrics.requests.get_or_create(&labels).inc();
        })
    }

    pub(in crate::controller) fn changed(&self, tailnet: &str, difference: &Difference) {
        let field = match difference.change.field() {
            // Without the key: each value of a label is a time series, and users choose the keys.
            Field::Attribute(_) => "postureAttributes".to_owned(),
            field => field.to_string(),
        };
        let labels = ChangeLabels {
            tailnet: tailnet.to_owned(),
            field,
            // One-shot actions and files have no cause: they were declared.
            cause: difference.cause.unwrap_or(ChangeCause::Declared).as_str(),
        };
        self.changes.get_or_create(&labels).inc();
    }

    pub(in crate::controller) fn status_written(&self) {
        self.status_writes.inc();
    }

    pub(in crate::controller) fn status_not_written(&self) {
        self.status_write_failures.inc();
    }

    pub(in crate::controller) fn tailnet(&self, name: &str, report: &TailnetReport) {
        let labels = TailnetLabels {
            tailnet: name.to_owned(),
        };
        let count = |items: usize| i64::try_from(items).unwrap_or(i64::MAX);
        // Unknown is not zero: the last number stays.
        if let Some(devices) = report.devices {
            self.devices.get_or_create(&labels).set(count(devices));
            self.unreadable
                .get_or_create(&labels)
                .set(count(report.unreadable.total));
        }
        self.policies
            .get_or_create(&labels)
            .set(count(report.policies));
        self.flapping
            .get_or_create(&labels)
            .set(count(report.flapping));
        self.reachable
            .get_or_create(&labels)
            .set(i64::from(report.failure.is_none()));
    }

    /// The present reason of a policy's Ready condition.
    pub(in crate::controller) fn policy_ready(
        &self,
        tailnet: &str,
        key: &PolicyKey,
        conditions: &[Condition],
    ) {
        let ready = conditions.iter().find(|condition| condition.type_ == READY);
        let labels = ready.map(|ready| ReadinessLabels {
            tailnet: tailnet.to_owned(),
            reason: ready.reason.clone(),
        });
        self.count_policy(key, labels);
    }

    /// The number of devices that a policy matches.
    pub(in crate::controller) fn policy_matches(&self, key: &PolicyKey, devices: u32) {
        self.by_policy.set(key, devices.into());
    }

    /// A policy is gone.
    pub(in crate::controller) fn policy_gone(&self, key: &PolicyKey) {
        self.count_policy(key, None);
        self.by_policy.remove(key);
    }

    fn count_policy(&self, key: &PolicyKey, now: Option<ReadinessLabels>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Statuses are derived often, and seldom change.
        if counted.get(key) == now.as_ref() {
            return;
        }
        if let Some(before) = counted.remove(key) {
            // The series stays at 0, so that an alert on it resolves.
            self.readiness.get_or_create(&before).dec();
        }
        if let Some(now) = now {
            self.readiness.get_or_create(&now).inc();
            counted.insert(key.clone(), now);
        }
    }
}
