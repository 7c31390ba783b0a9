//! What the controller serves over HTTP: health, metrics, and webhooks of Tailscale. And the traces that it sends.

pub(super) mod health;
mod http_server;
pub(super) mod metrics;
pub(super) mod traces;
pub(super) mod webhook;

pub use metrics::definition::{METRICS, MetricDefinition, MetricKind};
