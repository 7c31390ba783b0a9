use std::collections::BTreeMap;

use crate::model::{NodeId, RouteSet};

/// Devices on which a policy manages only some of the routes that it declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PartlyManaged(pub(super) BTreeMap<NodeId, RouteSet>);

impl PartlyManaged {
    /// The devices, with the routes that are managed there.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &RouteSet)> {
        self.0.iter()
    }
}

impl FromIterator<(NodeId, RouteSet)> for PartlyManaged {
    fn from_iter<I: IntoIterator<Item = (NodeId, RouteSet)>>(devices: I) -> Self {
        Self(devices.into_iter().collect())
    }
}
