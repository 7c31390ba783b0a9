//! The statuses that the controller writes, as pure functions of the old status, a report and the time.
//!
//! ```text
//! report ─► cause of its state ─► explained ─► ReadyState ─► conditions ─┐
//!     └──────► devices, pending changes, approvals, records ─────────────┴─► status
//! ```

mod actions;
mod approval;
mod binding;
mod conditions;
mod device;
mod permissions;
mod policy;
mod ready_state;
mod record;
mod release;
mod selector;
mod size;
mod tailnet;
#[cfg(test)]
pub(in crate::controller) mod tests;
mod text;

pub(super) use binding::unbound;
pub(super) use conditions::Conditions;
pub use policy::of_policy;
pub(super) use policy::{is_held, is_ready};
pub(super) use ready_state::{ReadyState, failed};
pub(super) use selector::flapping;
pub use tailnet::of_tailnet;
pub(super) use tailnet::{count_policies, deletions, recent, reserved, settle_poll_time};
pub(super) use text::bounded;
