//! An imagined tailnet with the devices that policies name or select.
//!
//! With it the planner itself finds the conflicts between policies: no rule of it is repeated here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    api::DeviceSelector,
    cli::manifests::LoadedPolicy,
    model::{Attributes, Device, NodeId, TagSet, folded},
    plan::{DeviceIndex, DeviceTarget, Identity, PolicyInput, Target},
};

/// The domain for names that have none.
const DOMAIN: &str = "model.ts.net";

/// Policies, and the devices that they target.
pub struct ImaginedTailnet {
    /// As the planner takes them.
    pub policies: Vec<PolicyInput>,
    /// One device for each device that is named, and one for each selector.
    pub fleet: DeviceIndex,
    /// No device has any attribute.
    pub attributes: BTreeMap<NodeId, Attributes>,
}

impl ImaginedTailnet {
    /// Imagines a tailnet for these policies.
    pub fn new(located: &[&LoadedPolicy]) -> Self {
        let mut policies: Vec<PolicyInput> = located.iter().map(|it| it.input.clone()).collect();
        let mut devices: BTreeMap<String, Device> = BTreeMap::new();
        for (number, (declared, located)) in policies.iter_mut().zip(located).enumerate() {
            let node = format!("model{number}").parse::<NodeId>();
            let (Ok(policy), Ok(node)) = (&mut declared.policy, node) else {
                continue;
            };
            match &policy.target {
                Target::Device(target) => {
                    let device = devices
                        .entry(identity_key(&target.identity))
                        // One device for all policies that name it, or they would never conflict.
                        .or_insert_with(|| plain(node));
                    set_identity(device, &target.identity);
                    // The tags of every policy, so that each of them targets the device.
                    device.tags.extend(target.tags.iter().cloned());
                    // Any one of them matches.
                    device.user = target.users.first().cloned().unwrap_or_default();
                }
                Target::Selector(selector) => {
                    let selects = located.object.spec.device_selector.iter();
                    let mut device = plain(node.clone());
                    device.tags.clone_from(&selector.tags);
                    selects.for_each(|selects| satisfy(&mut device, selects));
                    if !selector.matches(&device) {
                        // An expression can require anything. The policy gets a device of its own, and so no
                        // conflict.
                        Arc::make_mut(policy).target = Target::Device(DeviceTarget {
                            identity: Identity::NodeId(node),
                            tags: TagSet::new(),
                            users: Vec::new(),
                        });
                    }
                    devices.insert(device.node_id.to_string(), device);
                }
            }
        }
        Self {
            attributes: devices
                .values()
                .map(|device| (device.node_id.clone(), Attributes::new()))
                .collect(),
            fleet: DeviceIndex::new(devices.into_values()),
            policies,
        }
    }
}

/// Two policies with the same key target the same device. Of names only the first label counts.
fn identity_key(identity: &Identity) -> String {
    let key = identity.to_string();
    match identity {
        Identity::NodeId(_) | Identity::LegacyId(_) => key,
        Identity::Hostname(_) => folded(&key),
        Identity::Name(_) => folded(&key).split('.').take(1).collect::<String>(),
    }
}

fn set_identity(device: &mut Device, identity: &Identity) {
    match identity {
        Identity::NodeId(id) => device.node_id = id.clone(),
        Identity::LegacyId(id) => device.legacy_id.clone_from(id),
        Identity::Hostname(name) => device.hostname.clone_from(name),
        Identity::Name(name) if name.contains('.') => {
            name.trim_end_matches('.').clone_into(&mut device.name);
        }
        Identity::Name(label) if device.label().as_str() != label => {
            device.name = format!("{label}.{DOMAIN}");
        }
        // Another policy has given the name with its domain.
        Identity::Name(_) => {}
    }
}

/// Gives the device the users, hostname and OS that a selector matches.
fn satisfy(device: &mut Device, selects: &DeviceSelector) {
    let first = |globs: &Option<Vec<String>>| {
        let glob = globs.as_ref()?.first()?;
        // Any text that the glob matches will do.
        Some(glob.replace(['*', '?'], "x"))
    };
    if let Some(user) = first(&selects.users) {
        device.user = user;
    }
    if let Some(hostname) = first(&selects.hostnames) {
        device.hostname = hostname;
    }
    if let Some(os) = first(&selects.os) {
        device.os = os;
    }
}

fn plain(node: NodeId) -> Device {
    Device {
        legacy_id: node.to_string(),
        name: format!("{node}.{DOMAIN}"),
        hostname: node.to_string(),
        ..Device::plain(node)
    }
}
