use super::{AttributeWrites, Call};
use crate::model::{Attributes, Device, ReportedAttribute};

/// Applies an accepted request to the observed device, except for attributes, so that a write does not
/// cost a read. Effects that the API does not promise (for example, that tags disable key expiry) are not
/// applied; the device is read where they matter.
pub fn apply(call: &Call, device: &mut Device) {
    match call {
        Call::SetAuthorized(_, authorized) => device.authorized = *authorized,
        Call::SetTags(_, tags) => device.tags.clone_from(tags),
        Call::SetKeyExpiryDisabled(_, disabled) => device.key_expiry_disabled = *disabled,
        Call::SetRoutes(_, routes) => device.enabled_routes = Some(routes.clone()),
        Call::SetName(_, label) => {
            let domain = device
                .name
                .split_once('.')
                .map(|(_, domain)| domain.to_owned());
            device.name = match domain {
                Some(domain) => format!("{label}.{domain}"),
                None => label.to_string(),
            };
        }
        Call::SetIpv4(_, addr) => device.ipv4 = Some(addr.addr()),
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
