//! Tests that look at tsdp from the outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, but not in what these call"
)]

#[cfg(feature = "demo")]
mod control_plane;
mod crds;
#[cfg(feature = "demo")]
mod e2e;
mod examples;
#[expect(
    dead_code,
    reason = "check() is called once the suite has a control plane"
)]
mod refusals;
#[cfg(feature = "demo")]
mod support;
