//! Tests that look at tsdp from the outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, but not in what these call"
)]

mod crds;
mod examples;
mod readme;
#[expect(
    dead_code,
    reason = "check() is called once the suite has a control plane"
)]
mod refusals;
mod rooms;
mod client;
#[cfg(feature = "demo")]
mod seed_page;
#[cfg(feature = "demo")]
mod simulator;
#[cfg(feature = "demo")]
mod control_plane;
#[cfg(feature = "demo")]
mod support;
