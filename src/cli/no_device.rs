//! Why a policy targets no device, for the commands that read a tailnet.

use crate::{
    model::{Device, nearest},
    plan::{Binding, DeviceIndex, Identity, Selector, Target, Unmatched},
};

/// The criteria of a selector that no device meets, as the end of a message; empty if each is met by some device.
pub(super) fn why_no_match(selector: &Selector, fleet: &DeviceIndex) -> String {
    let unmatched = Unmatched::of(selector, fleet.devices());
    let why: Vec<String> = unmatched.iter().map(ToString::to_string).collect();
    match why.join("; ") {
        why if why.is_empty() => why,
        why => format!(": {why}"),
    }
}

/// Why a policy targets no device.
pub(super) fn why_no_device(
    target: &Target,
    binding: &Binding,
    fleet: &DeviceIndex,
) -> Option<String> {
    let (identity, named) = match target {
        Target::Device(target) => (&target.identity, target.identity.to_string()),
        Target::Selector(selector) => {
            // A selector need not match anything, but a policy without a device is probably a mistake.
            let is_empty = binding.nodes().next().is_none();
            return is_empty.then(|| {
                let why = why_no_match(selector, fleet);
                format!("no device matches its deviceSelector{why}")
            });
        }
    };
    Some(match binding {
        Binding::Device(_) | Binding::Selector(_) => return None,
        Binding::NotFound => {
            let near = like(identity, fleet);
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            format!("no device has the {named}{near}")
        }
        Binding::Missing(node) => {
            format!("the list of devices lacks {node}, the bound device with the {named}")
        }
        Binding::Unmet { node, lacks } => format!("{node} has the {named}, but {lacks}"),
        Binding::Ambiguous(nodes) => {
            let ids: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            format!(
                "several devices have the {named}. Set spec.device.nodeId to one of {}",
                ids.join(", ")
            )
        }
        Binding::Unreadable { node, fields } => {
            format!("{node} has the {named} now, but its owner cannot be read ({fields})")
        }
        Binding::IdentityChanged { bound, found, .. } if bound == found => format!(
            "{bound}, the bound device with the {named}, now belongs to someone else, who has signed in on it. \
             Set spec.device.nodeId to {found} if that is right"
        ),
        Binding::IdentityChanged { bound, found, .. } => format!(
            "{bound} is gone, and {found} of another owner now has the {named}. Set \
             spec.device.nodeId to {found} if it is the right device"
        ),
    })
}

/// What a device has that is close to what a policy names.
fn like(identity: &Identity, fleet: &DeviceIndex) -> Option<String> {
    let (wanted, of_device): (&str, fn(&Device) -> String) = match identity {
        Identity::NodeId(id) => (id.as_str(), |device| device.node_id.to_string()),
        Identity::Name(name) if name.contains('.') => (name, |device| device.name.clone()),
        Identity::Name(name) => (name, |device| device.label().to_string()),
        Identity::Hostname(hostname) => (hostname, |device| device.hostname.clone()),
        // Any number is close to many others.
        Identity::LegacyId(_) => return None,
    };
    let own = fleet.devices().filter(|device| !device.external);
    let known: Vec<String> = own.map(of_device).collect();
    nearest(wanted, known.iter().map(String::as_str)).map(str::to_owned)
}
