//! What a `TailscaleTailnet` declares for its engine.

use std::time::Duration;

use crate::{model::ChangeLimit, plan::Guardrails};

/// The minimum time for which a read counts as fresh for a request that sends unmanaged values along.
const FRESH: Duration = Duration::from_secs(10);

/// The settings of a tailnet.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The time between two lists.
    pub poll_interval: Duration,
    /// The minimum time between two reads of the attributes of one device.
    pub attributes_interval: Duration,
    /// Requests per second that the budget allows.
    pub requests_per_second: f64,
    /// How many devices may be changed within an hour.
    pub limit: ChangeLimit,
    /// What the tailnet allows.
    pub guardrails: Guardrails,
}

impl Settings {
    /// How old a read may be for a request that sends unmanaged values along: a few seconds, or as long as
    /// the budget needs for the request to follow the read.
    pub(super) fn fresh_for(&self) -> Duration {
        let two_requests = 2.0 / self.requests_per_second;
        FRESH.max(Duration::try_from_secs_f64(two_requests).unwrap_or_default())
    }
}
