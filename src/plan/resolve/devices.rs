use std::collections::BTreeSet;

use crate::model::{Device, NodeId, UnreadableFields};
use crate::plan::{
    AllowedRules, Approvals, Bound, DeviceIndex, DeviceTarget, Identity, Owner, Policy,
    PolicyRecord, Target,
};

/// The devices that a policy targets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Binding {
    /// This one.
    Device(NodeId),
    /// The devices that its selector matches; maybe none.
    Selector(BTreeSet<NodeId>),
    /// No device in the list has the name.
    NotFound,
    /// The last polls did not list the bound device, and nothing proves that it has left the tailnet.
    Missing(NodeId),
    /// The device of that name lacks tags or a user that the policy requires.
    Unmet {
        /// The device of that name.
        node: NodeId,
        /// What it lacks, as a clause.
        lacks: String,
    },
    /// Several devices have the name, and none is bound.
    Ambiguous(Vec<NodeId>),
    /// The bound device is gone, and it cannot be read who owns the device that has its name now.
    Unreadable {
        /// The device of that name.
        node: NodeId,
        /// What cannot be read.
        fields: UnreadableFields,
    },
    /// The bound device now belongs to someone else; or it is gone, and the device that has its name now
    /// belongs to someone else.
    IdentityChanged {
        /// The device that was bound.
        bound: NodeId,
        /// Its owner when last seen.
        owner: Owner,
        /// The same device, or the one that has the name now.
        found: NodeId,
        /// The owner of the found device.
        found_owner: Owner,
    },
}

impl Binding {
    /// The devices on which the policy counts, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        let many = match self {
            Self::Selector(nodes) => Some(nodes),
            _ => None,
        };
        self.node().into_iter().chain(many.into_iter().flatten())
    }

    /// Whether it is certain which devices the policy targets.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        matches!(self, Self::Device(_) | Self::Selector(_))
    }

    /// Whether the policy counts on this device.
    #[must_use]
    pub fn holds(&self, id: &NodeId) -> bool {
        match self {
            Self::Selector(nodes) => nodes.contains(id),
            _ => self.node() == Some(id),
        }
    }

    /// The bound device that someone else has signed in on: the policy sends nothing there.
    #[must_use]
    pub fn taken_over(&self) -> Option<&NodeId> {
        match self {
            Self::IdentityChanged { bound, found, .. } => (bound == found).then_some(found),
            _ => None,
        }
    }

    /// The one device on which the policy counts. A policy that waits for an approval of its bound device keeps
    /// its precedence there, or a policy that ranks below would take over its fields meanwhile. It has no
    /// precedence on another device that has the name now: a machine could claim the name to keep the policies
    /// of others away.
    fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Device(node) => Some(node),
            other => other.taken_over(),
        }
    }
}

/// Finds the devices of an admitted policy in a complete list, among those that the rules of the tailnet
/// let it change. The policy must neither learn of other devices nor affect other policies there.
#[must_use]
pub fn bind_policy(
    policy: &Policy,
    record: &PolicyRecord,
    approvals: &Approvals,
    index: &DeviceIndex,
) -> Binding {
    bind_among(&policy.target, &policy.allowance, record, approvals, index)
}

/// Finds the devices of a target in a complete list, whatever the rules of the tailnet.
#[must_use]
pub fn bind(
    target: &Target,
    record: &PolicyRecord,
    approvals: &Approvals,
    index: &DeviceIndex,
) -> Binding {
    bind_among(target, &AllowedRules::default(), record, approvals, index)
}

fn bind_among(
    target: &Target,
    allowance: &AllowedRules,
    record: &PolicyRecord,
    approvals: &Approvals,
    index: &DeviceIndex,
) -> Binding {
    match target {
        Target::Device(target) => bind_device(target, allowance, record, approvals, index),
        Target::Selector(selector) => {
            let devices = index.devices().filter(|device| allowance.is_about(device));
            let fitting = devices.filter(|device| selector.may_match(device));
            Binding::Selector(fitting.map(|device| device.node_id.clone()).collect())
        }
    }
}

/// While the bound device is in the list it stays bound, even if another device takes its name. When it is
/// gone, the policy follows another device of the name only if its owner is the same, or if someone
/// approved that device. Of several devices of the name, the policy follows the approved one.
fn bind_device(
    target: &DeviceTarget,
    allowance: &AllowedRules,
    record: &PolicyRecord,
    approvals: &Approvals,
    index: &DeviceIndex,
) -> Binding {
    // An edit that names the device otherwise is a new decision of its author.
    let bound = record.bound.as_ref();
    let bound = bound.filter(|bound| target.names(&bound.named));
    let still_there = bound.and_then(|bound| index.get(&bound.node));
    if let (Some(device), Some(bound)) = (still_there.filter(|device| !device.external), bound) {
        if !allowance.is_about(device) {
            return Binding::NotFound;
        }
        return successor(target, device, allowance, index)
            .filter(|next| approvals.nodes.contains(&next.node_id))
            // A nodeId names one device for ever, so nothing succeeds it.
            .filter(|_| may_change(&target.identity))
            .map_or_else(
                || bound_to(target, device, bound, approvals),
                |next| meets(target, next),
            );
    }
    let mut candidates = index.find(&target.identity);
    // A device that the rules keep from the policy does not exist for it (docs/decisions/0015).
    candidates.retain(|device| allowance.is_about(device));
    let mut approved = candidates
        .iter()
        .filter(|device| approvals.nodes.contains(&device.node_id));
    // Two approved devices settle nothing: the status asks for one of them.
    if let (Some(device), None) = (approved.next(), approved.next()) {
        return meets(target, device);
    }
    match (candidates.as_slice(), bound) {
        ([], _) => Binding::NotFound,
        ([device], Some(_))
            if may_change(&target.identity) && !Owner::unknown(device).is_empty() =>
        {
            Binding::Unreadable {
                node: device.node_id.clone(),
                fields: Owner::unknown(device),
            }
        }
        ([device], Some(bound))
            if may_change(&target.identity) && bound.owner != Owner::of(device) =>
        {
            Binding::IdentityChanged {
                bound: bound.node.clone(),
                owner: bound.owner.clone(),
                found: device.node_id.clone(),
                found_owner: Owner::of(device),
            }
        }
        // The first device of the name needs no approval, as nothing was granted to another one.
        ([device], _) => meets(target, device),
        (several, _) => Binding::Ambiguous(several.iter().map(|d| d.node_id.clone()).collect()),
    }
}

/// A device that is bound and listed. A machine that a person signs in again keeps its nodeId, loses its tags
/// and belongs to that person: a thief of the machine could take over what the policy grants.
fn bound_to(
    target: &DeviceTarget,
    device: &Device,
    bound: &Bound,
    approvals: &Approvals,
) -> Binding {
    let node = device.node_id.clone();
    let is_known = Owner::unknown(device).is_empty();
    let is_approved = approvals.nodes.contains(&node);
    match (target.is_taken_over(bound, device), is_approved) {
        (true, false) => Binding::IdentityChanged {
            bound: node.clone(),
            owner: bound.owner.clone(),
            found: node,
            found_owner: Owner::of(device),
        },
        // The policy may be the one that gives the required tags back.
        (_, true) if is_known && device.tags.is_empty() && target.users.is_empty() => {
            Binding::Device(node)
        }
        _ => meets(target, device),
    }
}

/// The connected device that has probably replaced a device that is not connected: it has the same hostname,
/// and meets what the policy requires. The first of several.
#[must_use]
pub fn successor<'i>(
    target: &DeviceTarget,
    device: &Device,
    allowance: &AllowedRules,
    index: &'i DeviceIndex,
) -> Option<&'i Device> {
    // A machine that is online could claim the hostname of another one, but not take it offline.
    if device.connected != Some(false) {
        return None;
    }
    let same_name = index.find(&Identity::Hostname(device.hostname.clone()));
    same_name.into_iter().find(|other| {
        other.node_id != device.node_id
            && other.connected == Some(true)
            && !other.external
            && allowance.is_about(other)
            && target.undecided_by(other).is_empty()
            && matches!(meets(target, other), Binding::Device(_))
    })
}

/// What a bound policy records of its device; `None` while it is unknown who owns it.
#[must_use]
pub fn recorded(target: &DeviceTarget, device: &Device) -> Option<Bound> {
    Owner::unknown(device).is_empty().then(|| Bound {
        node: device.node_id.clone(),
        owner: Owner::of(device),
        named: target.identity.to_string(),
    })
}

/// Whether an identity may name another device one day: an id always names the same device, a name can
/// pass to another one.
#[must_use]
pub fn may_change(identity: &Identity) -> bool {
    matches!(identity, Identity::Name(_) | Identity::Hostname(_))
}

fn meets(target: &DeviceTarget, device: &Device) -> Binding {
    let node = device.node_id.clone();
    if !target.undecided_by(device).is_empty() {
        // It stays the policy's device, and nothing is sent to it.
        return Binding::Device(node);
    }
    let missing: Vec<_> = target
        .tags
        .difference(&device.tags)
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        let lacks = format!("it does not have {}", missing.join(", "));
        return Binding::Unmet { node, lacks };
    }
    // A tagged device has no user: the one who registered it is no longer its owner.
    let owned = device.tags.is_empty() && target.users.contains(&device.user);
    if !target.users.is_empty() && !owned {
        // The message must not disclose the actual owner to the policy's author.
        let lacks = format!("its owner is none of {}", target.users.join(", "));
        return Binding::Unmet { node, lacks };
    }
    Binding::Device(node)
}
