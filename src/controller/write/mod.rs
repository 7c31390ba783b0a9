//! Everything that the controller writes to the cluster: statuses, the finalizer, Events.

pub(super) mod api_server;
pub(super) mod event;
pub(super) mod events;
pub(super) mod finalizer;
mod notifications;
pub(super) mod object_cache;
pub(super) mod objects;
mod repeats;
pub(super) mod status_patch;
pub(super) mod status_writer;
pub(super) mod stored;
mod transitions;
