//! The metrics of one tailnet. They live and end with its resource, so that a deleted tailnet leaves no series behind.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::metrics::histogram::Histogram;

use super::{
    definition::{self as define},
    page::{Page, Series},
};
use crate::{
    plan::{ChangeCause, Difference, Field},
    tailnet::{Backlog, TailnetReport},
    tailscale::{Bucket, Endpoint, Observation},
};

/// What is known of one tailnet.
#[derive(Debug)]
pub(in crate::controller) struct TailnetMetrics {
    /// By endpoint and HTTP status.
    requests: Mutex<BTreeMap<(&'static str, Option<u16>), Histogram>>,
    rate_limited: AtomicU64,
    webhooks: AtomicU64,
    changes: Mutex<BTreeMap<(String, &'static str), u64>>,
    plan: Histogram,
    reconcile: Histogram,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bucket: Option<Arc<Bucket>>,
    poll_interval: Option<Duration>,
    polled_at: Option<Timestamp>,
    backlog: Backlog,
    reported: Option<Reported>,
}

/// The numbers of the last report.
#[derive(Debug, Default)]
struct Reported {
    failure: Option<&'static str>,
    flapping: usize,
    /// Unknown is not zero: the last number stays.
    devices: Option<usize>,
    unreadable: usize,
    changed: Option<usize>,
    change_limit: Option<usize>,
}

/// The tailnets by name.
pub(super) type Tailnets = BTreeMap<String, Arc<TailnetMetrics>>;

const REQUEST_BUCKETS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const PLAN_BUCKETS: [f64; 6] = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0];
const RECONCILE_BUCKETS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

impl Default for TailnetMetrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            rate_limited: AtomicU64::default(),
            webhooks: AtomicU64::default(),
            changes: Mutex::default(),
            plan: Histogram::new(PLAN_BUCKETS),
            reconcile: Histogram::new(RECONCILE_BUCKETS),
            state: Mutex::default(),
        }
    }
}

impl TailnetMetrics {
    /// The tailnet has a resource with this interval, or with an invalid spec.
    pub fn declared(&self, poll_interval: Option<Duration>) {
        self.state().poll_interval = poll_interval;
    }

    /// Its requests take from this bucket from now on.
    pub fn takes_from(&self, bucket: Arc<Bucket>) {
        self.state().bucket = Some(bucket);
    }

    /// A request has ended.
    pub fn requested(&self, seen: &Observation) {
        let key = (seen.endpoint.as_str(), seen.status);
        let took = seen.duration.as_secs_f64();
        locked(&self.requests)
            .entry(key)
            .or_insert_with(|| Histogram::new(REQUEST_BUCKETS))
            .observe(took);
        if seen.status == Some(429) {
            self.rate_limited.fetch_add(1, Relaxed);
        }
        if seen.endpoint == Endpoint::Devices && seen.failure.is_none() {
            self.state().polled_at = Some(Timestamp::now());
        }
    }

    /// A setting was changed.
    pub fn changed(&self, difference: &Difference) {
        let field = match difference.change.field() {
            // Without the key: each value of a label is a time series, and users choose the keys.
            Field::Attribute(_) => "postureAttributes".to_owned(),
            field => field.to_string(),
        };
        // One-shot actions and files have no cause: they were declared.
        let cause = difference.cause.unwrap_or(ChangeCause::Declared).as_str();
        *locked(&self.changes).entry((field, cause)).or_default() += 1;
    }

    /// A webhook was accepted.
    pub fn webhook(&self) {
        self.webhooks.fetch_add(1, Relaxed);
    }

    /// A step of the engine took this long.
    pub fn planned(&self, took: Duration) {
        self.plan.observe(took.as_secs_f64());
    }

    /// The state of a policy was recorded, or that failed.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile.observe(took.as_secs_f64());
    }

    /// What waits now.
    pub fn waits(&self, backlog: Backlog) {
        self.state().backlog = backlog;
    }

    /// The tailnet as the engine reports it.
    pub fn reported(&self, report: &TailnetReport) {
        let mut state = self.state();
        let before = state.reported.take().unwrap_or_default();
        state.reported = Some(Reported {
            failure: report.failure.as_ref().map(|it| it.reason.as_str()),
            flapping: report.flapping,
            devices: report.devices.or(before.devices),
            unreadable: if report.devices.is_some() {
                report.unreadable.total
            } else {
                before.unreadable
            },
            changed: report.changed.or(before.changed),
            change_limit: report.change_limit,
        });
    }

    /// Another process may lead from now on: what was reported is no longer true.
    pub fn forget_report(&self) {
        self.state().reported = None;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Writes the metrics that only a leader can know.
pub(super) fn write_reports(page: &mut Page<'_>, tailnets: &Tailnets) -> fmt::Result {
    type Value = fn(&Reported) -> Option<usize>;
    let numbers: [(_, Value); 6] = [
        (&define::TAILNET_REACHABLE, |it| {
            Some(usize::from(it.failure.is_none()))
        }),
        (&define::DEVICES, |it| it.devices),
        (&define::UNREADABLE_DEVICES, |it| {
            it.devices.map(|_| it.unreadable)
        }),
        (&define::FLAPPING_MEMBERSHIPS, |it| Some(it.flapping)),
        (&define::CHANGED_DEVICES, |it| it.changed),
        (&define::CHANGE_LIMIT, |it| it.change_limit),
    ];
    for (metric, value) in numbers {
        page.metric(metric, |series| {
            each(tailnets, |name, tailnet| {
                let value = tailnet.state().reported.as_ref().and_then(value);
                value.map_or(Ok(()), |value| series.gauge(&[name], &value))
            })
        })?;
    }
    page.metric(&define::TAILNET_FAILURE, |series| {
        each(tailnets, |name, tailnet| {
            let reason = tailnet.state().reported.as_ref().and_then(|it| it.failure);
            reason.map_or(Ok(()), |reason| series.gauge(&[name, reason], &1_u64))
        })
    })?;
    page.metric(&define::CIRCUIT_OPEN, |series| {
        each(tailnets, |name, tailnet| {
            let state = tailnet.state();
            let Some(reported) = &state.reported else {
                return Ok(());
            };
            let is_paused = state.bucket.as_ref().is_some_and(|it| it.is_paused());
            let is_open = is_paused || reported.failure.is_some();
            series.gauge(&[name], &u64::from(is_open))
        })
    })
}

/// Writes the metrics of what this process does, whether it leads or not.
pub(super) fn write_activity(page: &mut Page<'_>, tailnets: &Tailnets) -> fmt::Result {
    write_requests(page, tailnets)?;
    write_budgets(page, tailnets)?;
    write_durations(page, tailnets)?;
    page.metric(&define::QUEUE_LENGTH, |series| {
        each(tailnets, |name, tailnet| {
            let backlog = tailnet.state().backlog;
            let queues = [
                ("devices", backlog.devices),
                ("requests", backlog.requests),
                ("selectors", backlog.selectors),
                ("statuses", backlog.statuses),
            ];
            let mut queues = queues.into_iter();
            queues.try_for_each(|(queue, length)| series.gauge(&[name, queue], &length))
        })
    })?;
    page.metric(&define::WEBHOOK_DELIVERIES, |series| {
        each(tailnets, |name, tailnet| {
            series.counter(&[name], &tailnet.webhooks.load(Relaxed))
        })
    })
}

fn write_requests(page: &mut Page<'_>, tailnets: &Tailnets) -> fmt::Result {
    page.metric(&define::LAST_POLL, |series| {
        each(tailnets, |name, tailnet| {
            let polled_at = tailnet.state().polled_at;
            optional(
                series,
                name,
                polled_at.map(|it| it.as_duration().as_secs_f64()),
            )
        })
    })?;
    page.metric(&define::POLL_INTERVAL, |series| {
        each(tailnets, |name, tailnet| {
            let interval = tailnet.state().poll_interval;
            optional(series, name, interval.map(|it| it.as_secs_f64()))
        })
    })?;
    page.metric(&define::CHANGES, |series| {
        each(tailnets, |name, tailnet| {
            let changes = locked(&tailnet.changes);
            let mut changes = changes.iter();
            changes.try_for_each(|((field, cause), count)| {
                series.counter(&[name, field, cause], count)
            })
        })
    })?;
    page.metric(&define::REQUEST_DURATION, |series| {
        each(tailnets, |name, tailnet| {
            let requests = locked(&tailnet.requests);
            let mut requests = requests.iter();
            requests.try_for_each(|((endpoint, status), durations)| {
                let code = status.map_or("none".to_owned(), |status| status.to_string());
                series.histogram(&[name, endpoint, &code], durations)
            })
        })
    })?;
    page.metric(&define::RATE_LIMITED, |series| {
        each(tailnets, |name, tailnet| {
            series.counter(&[name], &tailnet.rate_limited.load(Relaxed))
        })
    })
}

fn write_budgets(page: &mut Page<'_>, tailnets: &Tailnets) -> fmt::Result {
    page.metric(&define::BUDGET_TOKENS, |series| {
        each(tailnets, |name, tailnet| {
            let bucket = tailnet.state().bucket.clone();
            optional(series, name, bucket.map(|it| it.tokens()))
        })
    })?;
    page.metric(&define::BUDGET_WAIT, |series| {
        each(tailnets, |name, tailnet| {
            let bucket = tailnet.state().bucket.clone();
            let waited = bucket.map(|it| it.waited().as_secs_f64());
            waited.map_or(Ok(()), |waited| series.counter(&[name], &waited))
        })
    })
}

fn write_durations(page: &mut Page<'_>, tailnets: &Tailnets) -> fmt::Result {
    page.metric(&define::PLAN_DURATION, |series| {
        each(tailnets, |name, tailnet| {
            series.histogram(&[name], &tailnet.plan)
        })
    })?;
    page.metric(&define::RECONCILE_DURATION, |series| {
        each(tailnets, |name, tailnet| {
            series.histogram(&[name], &tailnet.reconcile)
        })
    })
}

fn optional(series: &mut Series<'_>, tailnet: &str, value: Option<f64>) -> fmt::Result {
    value.map_or(Ok(()), |value| series.gauge(&[tailnet], &value))
}

fn each(
    tailnets: &Tailnets,
    mut write: impl FnMut(&str, &TailnetMetrics) -> fmt::Result,
) -> fmt::Result {
    let mut tailnets = tailnets.iter();
    tailnets.try_for_each(|(name, tailnet)| write(name, tailnet))
}

/// No value can be left half-written.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
