//! Guardrails: which policies a tailnet allows, what they may change, and on which devices.
//!
//! | guardrail          | evaluated for                    | effect                                          |
//! |--------------------|----------------------------------|-------------------------------------------------|
//! | `allowedPolicies`  | a policy ([`Guardrails::admit`]) | the whole policy is refused                     |
//! |                    | a device ([`DevicePermissions`]) | held there; `Exact` owns only allowed entries   |
//! | `protectedDevices` | a device                         | every change of it is held                      |
//! | `suspend`          | all policies                     | each counts as suspended                        |
//!
//! A rule allows a change that matches all of its parts, and *one* such rule is enough: a policy may give a
//! tag to a device if one rule is for its namespace, the field `tags`, that tag, and that device. Parts of
//! different rules never combine.

mod admission;
mod guardrails;
mod permissions;
mod rules;
mod suggestion;
#[cfg(test)]
pub(super) mod tests;
mod unknown;

pub use admission::{Admission, Forbidden, Refusal};
pub use guardrails::Guardrails;
pub use permissions::{AllowedEntries, DevicePermissions, Entry, PolicyPermissions, SplitPolicies};
pub use rules::{AllowedRules, DeviceRule, Labels, Rule};
pub use suggestion::{yaml_list, yaml_string};
