//! Tests that look at tsdp from the outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, but not in what these call"
)]

mod client;
