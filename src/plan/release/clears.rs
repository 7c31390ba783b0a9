//! Whether a policy clears what it releases.

use std::collections::BTreeMap;

use crate::{
    model::{Route, RouteSet},
    plan::{Deletion, Mode, Policy, PolicyRecord},
};

impl Policy {
    /// Whether devices that it releases are cleared, now or once someone approves. Nothing is sent for a
    /// policy that is suspended or only observes.
    #[must_use]
    pub fn clears(&self) -> bool {
        self.deletion == Deletion::Clear && matches!(self.mode, Mode::Enforce | Mode::Approve)
    }

    /// The declared routes, which it withdraws from a device that it releases.
    #[must_use]
    pub fn named_routes(&self) -> RouteSet {
        let mut routes = self.desired.enabled_routes.clone().unwrap_or_default();
        // exitNode: false enables no route that a release could withdraw.
        if self.desired.exit_node == Some(true) {
            routes.extend(Route::exit_node());
        }
        routes
    }

    /// Whether it manages any setting that a release would clear.
    #[must_use]
    pub fn has_managed_settings(&self, record: &PolicyRecord) -> bool {
        let mut named = self.desired.attributes.iter().flat_map(BTreeMap::keys);
        named.next().is_some() || !record.owned.is_empty() || !self.named_routes().is_empty()
    }
}
