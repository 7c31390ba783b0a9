//! Keeps the settings of the devices in a Tailscale network as declared in YAML.
//!
//! `docs/architecture.md` describes the modules and the way of a manifest through them.

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
