//! Tests that look at tsdp from the outside.

mod crds;
