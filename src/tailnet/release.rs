//! `deletionPolicy: Clear`: the record of the devices that a policy manages, and of those that it has
//! released.
//!
//! The finalizer of a policy under `Clear` stays as long as its record has managed devices. When the policy
//! is being deleted, all its devices are released. Each is dropped from the record once it is cleared or gone
//! from the tailnet. `deleting.rs` decides when to give up instead.

use super::device_state::DeviceState;
use crate::{
    model::{AttributeKey, Device, ListSetting, Route},
    plan::{Difference, Field, ManagedSettings, PolicyKey},
};

impl DeviceState {
    /// The settings that are known to be gone.
    pub fn gone(&self, device: &Device, of: ManagedSettings) -> ManagedSettings {
        let written = |field: &Field| {
            let mut written = self.progress().written();
            written.any(|it| it == field)
        };
        let attributes = self.attributes();
        let is_gone = |key: &AttributeKey| {
            attributes.is_some_and(|values| !values.contains_key(key))
                && !written(&Field::Attribute(key.clone()))
        };
        let enabled = device.enabled_routes.as_ref();
        let is_disabled = |route: &Route| {
            let field = Field::List(ListSetting::of_route(route));
            enabled.is_some_and(|enabled| !enabled.contains(route)) && !written(&field)
        };
        // The snapshot may be older than a request whose outcome is unknown.
        if self.is_busy() || self.is_in_question() {
            return ManagedSettings::default();
        }
        ManagedSettings {
            keys: of.keys.into_iter().filter(is_gone).collect(),
            routes: of.routes.into_iter().filter(is_disabled).collect(),
        }
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
