//! A request to an endpoint.

use std::sync::Arc;

use axum::body::Bytes;
use http::HeaderMap;

use crate::simulator::{auth::Actor, device::Record, path::Target};

/// A request that has passed routing and permissions.
pub(super) struct Call<'a> {
    /// The values of the `{…}` in the endpoint's path, decoded.
    pub params: Vec<String>,
    pub target: &'a Target,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
    pub actor: Actor,
    /// The devices that the list shows instead of the present ones.
    pub stale: Option<Arc<Vec<Record>>>,
}

impl Call<'_> {
    /// The first variable part of the path: for most endpoints the device.
    pub fn id(&self) -> &str {
        &self.params[0]
    }
}
