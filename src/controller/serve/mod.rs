//! What the controller serves over HTTP: health, metrics, and webhooks of Tailscale.

pub(in crate::controller) mod health;
mod http_server;
pub(in crate::controller) mod metrics;
pub(in crate::controller) mod webhook;
