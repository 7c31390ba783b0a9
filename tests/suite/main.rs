//! Tests that look at tsdp from the outside.

mod crds;
mod examples;
#[expect(dead_code, reason = "called once the suite has a control plane")]
mod refusals;
