//! What a `TailscaleTailnet` declares for its engine.

use std::time::Duration;

use crate::{model::ChangeLimit, plan::Guardrails};

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
