//! Keeps the settings of the devices in a Tailscale network as declared in YAML.
//!
//! `docs/architecture.md` describes the modules and the way of a manifest through them.

#![cfg_attr(
    test,
    allow(clippy::too_many_lines, reason = "a test may tell a long story")
)]

pub mod api;
pub mod cli;
pub mod controller;
pub mod convert;
#[cfg(test)]
#[path = "../tests/suite/support/generated.rs"]
mod generated;
#[cfg(feature = "demo")]
pub mod local;
pub mod model;
pub mod plan;
#[cfg(feature = "demo")]
pub mod simulator;
pub mod tailnet;
pub mod tailscale;
#[cfg(test)]
mod tests;
