//! Tests that look at tsdp from the outside.

#[cfg(feature = "demo")]
mod seed_page;
#[cfg(feature = "demo")]
mod simulator;
