//! Tests that look at tsdp from the outside.
#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only the functions with #[test] for tests"
)]

#[cfg(feature = "demo")]
mod control_plane;
#[cfg(feature = "demo")]
mod lease;
#[cfg(feature = "demo")]
mod support;
