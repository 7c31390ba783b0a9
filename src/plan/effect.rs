use super::{AttributeWrites, Call};
use crate::model::{Attributes, Device, ReportedAttribute};

/// Applies an accepted request to the observed device, except for attributes, so that a write does not
/// cost a read. Effects that the API does not promise (for example, that tags disable key expiry) are not
/// applied; the device is read where they matter.
pub fn apply(call: &Call, device: &mut Device) {
    match call {
        Call::Set(_, value) => value.apply(device),
        Call::SetTags(_, tags) => device.tags.clone_from(tags),
        Call::SetRoutes(_, routes) => device.enabled_routes = Some(routes.clone()),
        // The next poll reports the new expiry of the key, and whether the device is gone.
        Call::WriteAttributes(_) | Call::ExpireKey(_) | Call::Delete(_) => {}
    }
}

/// Applies accepted writes to the observed attributes of a device.
pub fn apply_attributes(writes: &AttributeWrites, attributes: &mut Attributes) {
    for (key, desired) in writes {
        match desired {
            Some(desired) => {
                let value = desired.value.to_json();
                attributes.insert(
                    key.clone(),
                    ReportedAttribute {
                        value,
                        expiry: desired.expiry,
                    },
                );
            }
            None => {
                attributes.remove(key);
            }
        }
    }
}
