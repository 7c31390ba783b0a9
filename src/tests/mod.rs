//! Tests of several layers together.

#[cfg(feature = "demo")]
mod settings;
