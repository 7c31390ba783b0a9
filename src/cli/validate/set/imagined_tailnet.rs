//! A model of a tailnet: the devices that policies speak of, as far as they say what those are.
//!
//! So the plan itself is asked what happens between policies: nothing of it is repeated here.

use std::collections::BTreeMap;

use crate::{
    api::{DeviceSelector, TailscaleDevicePolicy},
    cli::manifests::Located,
    model::{Attributes, Device, NodeId, TagSet},
    plan::{DeviceIndex, DeviceTarget, Identity, PolicyInput, Target},
};

/// The domain of names that are written without one.
const DOMAIN: &str = "model.ts.net";

/// Policies and the devices that they mean.
pub struct ImaginedTailnet {
    /// As the plan takes them.
    pub policies: Vec<PolicyInput>,
    /// A device for each that is named, and one for each selector.
    pub fleet: DeviceIndex,
    /// No device has any attribute.
    pub attributes: BTreeMap<NodeId, Attributes>,
}

impl ImaginedTailnet {
    /// A tailnet for these policies.
    pub fn new(located: &[&Located<TailscaleDevicePolicy>]) -> Self {
        let mut policies: Vec<PolicyInput> = located.iter().map(|it| it.declared()).collect();
        let mut devices: BTreeMap<String, Device> = BTreeMap::new();
        for (number, (declared, located)) in policies.iter_mut().zip(located).enumerate() {
            let node = format!("model{number}").parse::<NodeId>();
            let (Ok(policy), Ok(node)) = (&mut declared.policy, node) else {
                continue;
            };
            match &policy.target {
                Target::Device(target) => {
                    let device = devices
                        .entry(known_as(&target.identity))
                        .or_insert_with(|| plain(node));
                    be_called(device, &target.identity);
                    device.tags.extend(target.tags.iter().cloned());
                    device.user = target.users.first().cloned().unwrap_or_default();
                }
                Target::Selector(selector) => {
                    let selects = located.object.spec.device_selector.iter();
                    let mut device = plain(node.clone());
                    device.tags.clone_from(&selector.tags);
                    selects.for_each(|selects| fit(&mut device, selects));
                    if !selector.matches(&device) {
                        // An expression can ask for anything: the policy is alone with its device.
                        policy.target = Target::Device(DeviceTarget {
                            identity: Identity::NodeId(node),
                            tags: TagSet::new(),
                            users: Vec::new(),
                        });
                    }
                    devices.insert(device.node_id.to_string(), device);
                }
            }
        }
        let unset = |device: &Device| (device.node_id.clone(), Attributes::new());
        Self {
            attributes: devices.values().map(unset).collect(),
            fleet: DeviceIndex::new(devices.into_values()),
            policies,
        }
    }
}

/// Policies with the same word here mean the same device: names are compared by their first part.
fn known_as(identity: &Identity) -> String {
    let word = identity.to_string();
    match identity {
        Identity::NodeId(_) | Identity::LegacyId(_) => word,
        Identity::Hostname(_) => word.to_ascii_lowercase(),
        Identity::Name(_) => word
            .to_ascii_lowercase()
            .split('.')
            .take(1)
            .collect::<String>(),
    }
}

fn be_called(device: &mut Device, identity: &Identity) {
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
        Identity::Name(_) => {}
    }
}

/// Takes on what a selector asks for, as far as that is said in words.
fn fit(device: &mut Device, selects: &DeviceSelector) {
    let first = |globs: &Option<Vec<String>>| {
        let glob = globs.as_ref()?.first()?;
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
        node_id: node,
        user: String::new(),
        tags: TagSet::new(),
        ipv4: None,
        os: String::new(),
        client_version: String::new(),
        update_available: false,
        ephemeral: false,
        created: None,
        authorized: true,
        external: false,
        key_expiry_disabled: false,
        expires: None,
        connected: None,
        last_seen: None,
        enabled_routes: None,
        advertised_routes: None,
    }
}
