//! What every reconcile of an invite needs.

use std::sync::Arc;

use crate::controller::{
    election::Leadership, serve::metrics::Metrics, tailnets::event::Lookups,
    watch::readiness::Readiness, write::events::EventWriter,
};

/// The dependencies of every reconcile.
pub(in crate::controller) struct Context {
    pub client: kube::Client,
    pub events: EventWriter,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// The engines, which know the devices.
    pub lookups: Lookups,
}
