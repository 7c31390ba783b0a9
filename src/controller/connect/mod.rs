//! From a `TailscaleTailnet` and its Secret, or from the environment, to a client of the Tailscale API.

pub(super) mod budget;
pub(super) mod channel;
pub(super) mod connection;
pub(super) mod environment;
pub(super) mod failures;
mod identity;
pub(super) mod reread;
mod secret;
pub(super) mod settings;
