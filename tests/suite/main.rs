//! Tests that look at tsdp from the outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

#[cfg(feature = "demo")]
mod seed_page;
#[cfg(feature = "demo")]
mod simulator;
