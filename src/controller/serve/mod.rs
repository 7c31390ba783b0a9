//! What the controller serves over HTTP: health, metrics, and webhooks of Tailscale.

pub(super) mod health;
mod http_server;
pub(super) mod metrics;
mod policy_metrics;
pub(super) mod webhook;
