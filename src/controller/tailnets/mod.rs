//! Which policy belongs to which tailnet, and an engine for each tailnet.
//!
//! ```text
//! events ─► registry ─┬─► shown objects, sources: what the watches have shown
//!                     └─► engines ─► handle of a tailnet ─► mailbox of its engine, connection
//! ```

mod engines;
pub(super) mod event;
mod handle;
pub(super) mod policy_input;
pub(super) mod registry;
mod shown;
mod sources;
