//! From a `TailscaleTailnet` and its Secret, or from the environment, to a client of the Tailscale API.

pub(in crate::controller) mod connection;
pub(in crate::controller) mod environment;
mod identity;
mod secret;
