//! Converts custom resources into the planner's values, and its records into a status and back.
//!
//! ```text
//! spec ──────► Policy, Guardrails, DeviceTarget, Selector      (or all errors, each with its path)
//! status ◄───► PolicyRecord, OwnedRecord
//! ```
//!
//! The only place that knows both [`crate::api`] and [`crate::plan`] field by field: the planner knows nothing of
//! manifests, and a manifest nothing of plans.

#[cfg(test)]
pub(crate) mod fixtures;
mod guardrails;
mod history;
mod owned_keys;
mod policy;
mod record;
mod settings;
mod spec_errors;
mod target;
#[cfg(test)]
mod tests;

pub use guardrails::GuardrailsSource;
pub use history::history;
pub use policy::{policy, readable_policy};
pub use record::{whole_second, write_record};
pub use settings::{declare, declare_list, declares_same, undeclare};
pub use target::{device_target, selector};
