//! `deletionPolicy: Clear`: the record of the devices that a policy manages, and of those that it has
//! released.
//!
//! The finalizer of a policy under `Clear` stays as long as its record has managed devices. When the policy
//! is being deleted, all its devices are released. Each is dropped from the record once it is cleared or gone
//! from the tailnet. `deleting.rs` decides when to give up instead.

use super::device_state::DeviceState;
use crate::{
    model::{AttributeKey, Device, ListSetting},
    plan::{Difference, Field, ManagedSettings, PolicyKey},
};

impl DeviceState {
    /// The settings that are known to be gone.
    pub fn gone(&self, device: &Device, of: ManagedSettings) -> ManagedSettings {
        // The snapshot may be older than a request whose outcome is unknown.
        if self.is_busy() || self.is_in_question() {
            return ManagedSettings::default();
        }
        ManagedSettings {
            keys: of
                .keys
                .into_iter()
                .filter(|key| self.lacks_attribute(key))
                .collect(),
            routes: of
                .routes
                .into_iter()
                .filter(|route| {
                    let field = Field::List(ListSetting::of_route(route));
                    let enabled = device.enabled_routes.as_ref();
                    enabled.is_some_and(|enabled| !enabled.contains(route))
                        && !self.has_written(&field)
                })
                .collect(),
        }
    }

    /// Whether a read shows that an attribute is not set, and no write of it is unverified.
    pub fn lacks_attribute(&self, key: &AttributeKey) -> bool {
        let read = self.attributes();
        read.is_some_and(|values| !values.contains_key(key))
            && !self.has_written(&Field::Attribute(key.clone()))
    }

    fn has_written(&self, field: &Field) -> bool {
        let mut written = self.progress().written();
        written.any(|it| it == field)
    }
}

pub(super) fn blocker(
    node: &DeviceState,
    key: &PolicyKey,
    difference: &Difference,
) -> Option<String> {
    let label = format!("{} ({})", difference.device, difference.node);
    if let Some((field, failure)) = node.failures(key).next() {
        let field = field.map_or(String::new(), |field| format!(" {field}:"));
        return Some(format!("{label}:{field} {}", failure.message));
    }
    let hold = difference.hold.as_ref()?;
    let change = node.plan().disclosed_as(difference, key).change;
    Some(format!("{label}: {change} is held: {hold}"))
}
