//! Tests that look at tsdp from the outside.

#[cfg(feature = "demo")]
mod control_plane;
#[cfg(feature = "demo")]
mod support;
