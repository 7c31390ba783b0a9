//! Which policy belongs to which tailnet, and an engine for each tailnet.

pub(in crate::controller) mod policy_input;
pub(in crate::controller) mod registry;
mod tailnet;
