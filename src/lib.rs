//! Keeps the settings of a Tailscale network's devices as declared in YAML.
//!
//! The rooms and the way of a manifest through them are in `docs/architecture.md`.

pub mod api;
pub mod cli;
pub mod controller;
#[cfg(feature = "demo")]
pub mod local;
pub mod model;
pub mod plan;
#[cfg(feature = "demo")]
pub mod simulator;
pub mod tailnet;
pub mod tailscale;
