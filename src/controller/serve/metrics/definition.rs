//! What each metric is: the only place with the names, from which `.ci/generate` writes the table in `docs/metrics.md`.

use prometheus_client::{metrics::MetricType, registry::Unit};

/// A metric, as a scrape shows it.
#[derive(Debug, Clone, Copy)]
pub struct MetricDefinition {
    /// Its name. The series of a histogram add `_bucket`, `_count` and `_sum`.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// The labels of each of its series.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub meaning: &'static str,
    /// How many series it has.
    pub series: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, until the process restarts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations, by how long they were.
    Histogram,
    /// Always 1; the labels have the information.
    Info,
}

impl MetricKind {
    /// The name of the type in Prometheus.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the encoder adds to the name.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }

    pub(super) const fn encoded(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

impl MetricDefinition {
    /// Its unit, which its name ends with; none for a number of things.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.trim_end_matches(self.kind.suffix());
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.ends_with(unit))
    }

    /// The name and the unit to which the encoder adds the rest.
    pub(super) fn encoded(&self) -> (&'static str, Option<Unit>) {
        let name = self.name.trim_end_matches(self.kind.suffix());
        match self.unit() {
            None => (name, None),
            Some(text) => {
                let unit = match text {
                    "bytes" => Unit::Bytes,
                    _ => Unit::Seconds,
                };
                (
                    name.trim_end_matches(text).trim_end_matches('_'),
                    Some(unit),
                )
            }
        }
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    meaning: &'static str,
    series: &'static str,
) -> MetricDefinition {
    let kind = MetricKind::Counter;
    MetricDefinition {
        name,
        kind,
        labels,
        meaning,
        series,
    }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    meaning: &'static str,
    series: &'static str,
) -> MetricDefinition {
    let kind = MetricKind::Gauge;
    MetricDefinition {
        name,
        kind,
        labels,
        meaning,
        series,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    meaning: &'static str,
    series: &'static str,
) -> MetricDefinition {
    let kind = MetricKind::Histogram;
    MetricDefinition {
        name,
        kind,
        labels,
        meaning,
        series,
    }
}

const ONE: &str = "1";
const TAILNET: &str = "1 for each tailnet";

pub(super) const BUILD_INFO: MetricDefinition = MetricDefinition {
    name: "tsdp_build_info",
    kind: MetricKind::Info,
    labels: &["version", "revision"],
    meaning: "the release, and the Git commit that it was built from (`unknown` if the build did not say)",
    series: ONE,
};
pub(super) const LEADER: MetricDefinition = gauge(
    "tsdp_leader",
    &["lease"],
    "1 while this process holds the Lease (`NAMESPACE/NAME`) and may write, 0 on a standby",
    ONE,
);

pub(super) const TAILNET_REACHABLE: MetricDefinition = gauge(
    "tsdp_tailnet_reachable",
    &["tailnet"],
    "1 while the controller can read the devices of the tailnet, otherwise 0",
    TAILNET,
);
pub(super) const TAILNET_FAILURE: MetricDefinition = gauge(
    "tsdp_tailnet_failure",
    &["tailnet", "reason"],
    "1 with the [reason](reasons.md) why the devices cannot be read; no series while they can",
    "at most 1 for each tailnet",
);
pub(super) const LAST_POLL: MetricDefinition = gauge(
    "tsdp_last_successful_poll_timestamp_seconds",
    &["tailnet"],
    "when the last complete list of devices arrived (Unix time)",
    TAILNET,
);
pub(super) const POLL_INTERVAL: MetricDefinition = gauge(
    "tsdp_poll_interval_seconds",
    &["tailnet"],
    "`spec.pollInterval` of the TailscaleTailnet",
    TAILNET,
);
pub(super) const DEVICES: MetricDefinition = gauge(
    "tsdp_devices",
    &["tailnet"],
    "the tailnet's own devices, without those shared in from other tailnets",
    TAILNET,
);
pub(super) const UNREADABLE_DEVICES: MetricDefinition = gauge(
    "tsdp_unreadable_devices",
    &["tailnet"],
    "devices that the API reports in a form that cannot be read completely",
    TAILNET,
);
pub(super) const FLAPPING_MEMBERSHIPS: MetricDefinition = gauge(
    "tsdp_flapping_memberships",
    &["tailnet"],
    "devices that keep [joining and leaving a policy](select-devices.md#selector-fields) through their claims, \
     each counted for each policy; they stay in or out",
    TAILNET,
);
pub(super) const CHANGED_DEVICES: MetricDefinition = gauge(
    "tsdp_changed_devices",
    &["tailnet"],
    "distinct devices that were changed within the last hour",
    TAILNET,
);
pub(super) const CHANGE_LIMIT: MetricDefinition = gauge(
    "tsdp_change_limit_devices",
    &["tailnet"],
    "distinct devices that may be changed within an hour (`maxChangedDevices`); no series without a limit",
    "at most 1 for each tailnet",
);

pub(super) const POLICIES: MetricDefinition = gauge(
    "tsdp_policies",
    &["tailnet", "ready", "reason"],
    "policies, by the status (`true`, `false`, `unknown`) and the [reason](reasons.md) of their condition `Ready`",
    "for each tailnet, 1 for each reason that a policy has now (at most 50)",
);
pub(super) const PENDING_CHANGES: MetricDefinition = gauge(
    "tsdp_pending_changes",
    &["tailnet", "held", "reason"],
    "declared values that do not hold now, by [reason](reasons.md); `held` is `true` for those that the controller holds \
     (`status.heldChanges`)",
    "for each tailnet, 1 for each reason that a change has now (at most 50)",
);
pub(super) const PENDING_DEVICES: MetricDefinition = gauge(
    "tsdp_pending_devices",
    &["tailnet", "held", "reason"],
    "the devices of these changes, each counted once for each policy and reason",
    "as `tsdp_pending_changes`",
);
pub(super) const CHANGES: MetricDefinition = counter(
    "tsdp_changes_total",
    &["tailnet", "field", "cause"],
    "changed settings, by field and [cause](operate.md#events-and-log-lines): `Declared`, `Drift`, `Joined`, or \
     `Released`",
    "for each tailnet, at most 40: 10 fields, 4 causes. All keys of `postureAttributes` are one field",
);

pub(super) const REQUEST_DURATION: MetricDefinition = histogram(
    "tsdp_api_request_duration_seconds",
    &["tailnet", "endpoint", "code"],
    "requests to the Tailscale API, from sending to the end of the answer, by endpoint and HTTP status (`none`: no \
     answer)",
    "for each tailnet, 13 for each endpoint (about 20) and status that occurs; usually fewer than 200",
);
pub(super) const RATE_LIMITED: MetricDefinition = counter(
    "tsdp_api_rate_limited_total",
    &["tailnet"],
    "answers 429 of the Tailscale API",
    TAILNET,
);
pub(super) const BUDGET_TOKENS: MetricDefinition = gauge(
    "tsdp_request_budget_tokens",
    &["tailnet"],
    "requests that may be sent at once (`requestBudget`)",
    TAILNET,
);
pub(super) const BUDGET_WAIT: MetricDefinition = counter(
    "tsdp_request_budget_wait_seconds_total",
    &["tailnet"],
    "time that requests waited for the budget. A rate near 1 means that a request always waits",
    TAILNET,
);
pub(super) const CIRCUIT_OPEN: MetricDefinition = gauge(
    "tsdp_circuit_open",
    &["tailnet"],
    "1 while no change is sent, because the devices cannot be read or the API has asked for a pause",
    TAILNET,
);

pub(super) const PLAN_DURATION: MetricDefinition = histogram(
    "tsdp_plan_duration_seconds",
    &["tailnet"],
    "steps of the engine: match selectors, compare devices with policies, and choose what to send",
    "9 for each tailnet",
);
pub(super) const RECONCILE_DURATION: MetricDefinition = histogram(
    "tsdp_reconcile_duration_seconds",
    &["tailnet"],
    "from a new state of a policy to its record in Kubernetes: status, finalizer and Events",
    "13 for each tailnet",
);
pub(super) const QUEUE_LENGTH: MetricDefinition = gauge(
    "tsdp_queue_length",
    &["tailnet", "queue"],
    "what waits or is under way: `devices` to change or read, `requests` in flight, `selectors` to match, `statuses` \
     to write",
    "4 for each tailnet",
);

pub(super) const STATUS_WRITES: MetricDefinition = counter(
    "tsdp_status_writes_total",
    &[],
    "statuses that were written to the Kubernetes API",
    ONE,
);
pub(super) const STATUS_WRITE_FAILURES: MetricDefinition = counter(
    "tsdp_status_write_failures_total",
    &["reason"],
    "statuses that were not written: `Conflict` and `NotFound` (the object has changed or is gone, which is normal), \
     `Forbidden`, `Timeout`, `Failed`",
    "5",
);
pub(super) const WATCH_RESTARTS: MetricDefinition = counter(
    "tsdp_watch_restarts_total",
    &["watch"],
    "watches of the Kubernetes API that failed and were started again",
    "3, or 2 for each watched namespace and 1; one more for each with invites",
);
pub(super) const WEBHOOK_DELIVERIES: MetricDefinition = counter(
    "tsdp_webhook_deliveries_total",
    &["tailnet"],
    "webhooks of Tailscale that were accepted",
    TAILNET,
);
pub(super) const WEBHOOK_REJECTIONS: MetricDefinition = counter(
    "tsdp_webhook_rejections_total",
    &["reason"],
    "webhooks that were refused: `UnknownTailnet` (no such tailnet, or its Secret has no `webhook_secret`), \
     `Unsigned`, `Forged` (another secret), `Old` and `Early` (clocks differ), `Body`",
    "6",
);

pub(super) const MATCHED_DEVICES: MetricDefinition = gauge(
    "tsdp_policy_matched_devices",
    &["namespace", "name"],
    "with `--policy-metrics`: the devices that a policy matches",
    "as many as the flag says",
);
pub(super) const METRICS_OMITTED: MetricDefinition = gauge(
    "tsdp_policy_metrics_omitted",
    &[],
    "with `--policy-metrics`: policies over that number, which have no series",
    ONE,
);

pub(super) const CPU: MetricDefinition = counter(
    "process_cpu_seconds_total",
    &[],
    "CPU time of the process, user and system",
    ONE,
);
pub(super) const RESIDENT_MEMORY: MetricDefinition = gauge(
    "process_resident_memory_bytes",
    &[],
    "memory of the process that is in use",
    ONE,
);
pub(super) const VIRTUAL_MEMORY: MetricDefinition = gauge(
    "process_virtual_memory_bytes",
    &[],
    "address space of the process",
    ONE,
);
pub(super) const OPEN_FILES: MetricDefinition =
    gauge("process_open_fds", &[], "open file descriptors", ONE);
pub(super) const MAX_FILES: MetricDefinition = gauge(
    "process_max_fds",
    &[],
    "file descriptors that the process may open",
    ONE,
);
pub(super) const START_TIME: MetricDefinition = gauge(
    "process_start_time_seconds",
    &[],
    "when the process started (Unix time)",
    ONE,
);

/// All metrics, in the order of a scrape.
pub const METRICS: [&MetricDefinition; 36] = [
    &BUILD_INFO,
    &LEADER,
    &TAILNET_REACHABLE,
    &TAILNET_FAILURE,
    &LAST_POLL,
    &POLL_INTERVAL,
    &DEVICES,
    &UNREADABLE_DEVICES,
    &FLAPPING_MEMBERSHIPS,
    &CHANGED_DEVICES,
    &CHANGE_LIMIT,
    &POLICIES,
    &PENDING_CHANGES,
    &PENDING_DEVICES,
    &CHANGES,
    &REQUEST_DURATION,
    &RATE_LIMITED,
    &BUDGET_TOKENS,
    &BUDGET_WAIT,
    &CIRCUIT_OPEN,
    &PLAN_DURATION,
    &RECONCILE_DURATION,
    &QUEUE_LENGTH,
    &STATUS_WRITES,
    &STATUS_WRITE_FAILURES,
    &WATCH_RESTARTS,
    &WEBHOOK_DELIVERIES,
    &WEBHOOK_REJECTIONS,
    &MATCHED_DEVICES,
    &METRICS_OMITTED,
    &CPU,
    &RESIDENT_MEMORY,
    &VIRTUAL_MEMORY,
    &OPEN_FILES,
    &MAX_FILES,
    &START_TIME,
];
