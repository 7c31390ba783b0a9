//! Everything that the controller writes to the cluster: statuses, the finalizer, Events.

pub(in crate::controller) mod events;
pub(in crate::controller) mod finalizer;
pub(in crate::controller) mod object_cache;
pub(in crate::controller) mod status_patch;
pub(in crate::controller) mod status_writer;
pub(in crate::controller) mod stored;
