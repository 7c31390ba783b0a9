//! The controller as a user meets it: a real API server, kubectl, the program under the rights of
//! `deploy/`, and a simulated tailnet.
//!
//! Each test has a cluster of its own; what belongs together shares one, as a start costs seconds.

mod identity;
mod main_path;
mod webhook;
