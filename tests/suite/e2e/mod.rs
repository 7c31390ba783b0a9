//! The controller as a user sees it: a real API server, kubectl, the program with the permissions of
//! `deploy/`, and a simulated tailnet.
//!
//! Each test has its own cluster. Related checks share one, because a start takes seconds.

mod actions;
mod approvals;
mod approve;
mod bounds;
mod causes;
mod changes;
mod clears;
mod edited_status;
mod faults;
mod fields;
mod figures;
mod flapping;
mod fleets;
mod from_environment;
mod git;
mod glance;
mod guards;
mod held;
mod hostile;
mod identity;
mod incidents;
mod install;
mod invites;
mod late;
mod leaders;
mod left_alone;
mod limits;
mod logs;
mod main_path;
mod metrics;
mod outages;
mod permissions;
mod scopes;
mod secrets;
mod shared;
mod short_lists;
mod sizes;
mod start_up;
mod tailnet_wide;
mod tenants;
mod terms;
mod traces;
mod transitions;
mod unreadable;
mod upgrade;
mod view;
pub mod webhook;
mod workload_identity;
