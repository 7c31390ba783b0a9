//! Tests of tsdp from the outside.
//!
//! They need the feature `demo` (on by default): the simulator and the local control plane.

#![cfg(feature = "demo")]
#![allow(clippy::too_many_lines, reason = "a test may tell a long story")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, but not in what these call"
)]

mod circles;
mod cli;
mod client;
mod control_plane;
mod crds;
mod docs;
mod e2e;
mod examples;
mod gitops;
mod helm;
mod layers;
mod lease;
mod messages;
mod metrics_page;
mod monitoring;
mod readme;
mod reference;
mod refusals;
mod release;
mod seed_page;
mod several_policies;
mod simulator;
mod static_binary;
mod support;
mod typed_errors;
mod words;
mod workflows;
