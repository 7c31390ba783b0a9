use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::{
    DeviceField, DeviceLabel, NodeId, RouteSet, TagSet, UnreadableDevice, UnreadableFields,
};

/// A device as the list reports it, with the fields that the plan needs.
///
/// Posture attributes are not part of it: the API returns them for a separate request
/// ([`super::Attributes`]).
#[expect(clippy::struct_excessive_bools, reason = "the API's own fields")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The preferred id.
    pub node_id: NodeId,
    /// The older numeric id, which a manifest may use too.
    pub legacy_id: String,
    /// The MagicDNS name, fully qualified (`pangolin.tailfe8c.ts.net`).
    pub name: String,
    /// The hostname of the machine. Does not follow a rename of the device.
    pub hostname: String,
    /// The login name of the user who registered it; the owner as long as it has no tags.
    pub user: String,
    /// Its tags; empty for a device that a user owns.
    pub tags: TagSet,
    /// Its Tailscale IPv4 address. A device without one is possible (a tailnet without IPv4).
    pub ipv4: Option<Ipv4Addr>,
    /// The operating system, as the machine reports it.
    pub os: String,
    /// The version of its client, as the machine reports it.
    pub client_version: String,
    /// Whether there is a newer client for it.
    pub update_available: bool,
    /// Whether it leaves the tailnet by itself when it goes offline.
    pub ephemeral: bool,
    /// When it joined the tailnet. `None`: not reported, as for external devices.
    pub created: Option<Timestamp>,
    /// Whether it is authorized to use the tailnet.
    pub authorized: bool,
    /// Shared in from another tailnet: nothing about it can be changed from here.
    pub external: bool,
    /// Whether its key never expires.
    pub key_expiry_disabled: bool,
    /// When its key expires, or would if expiry were enabled. `None`: never set.
    pub expires: Option<Timestamp>,
    /// Whether it is connected to the control server now. `None`: not reported.
    pub connected: Option<bool>,
    /// When it was last connected. `None` if it never was; while it is connected, either `None` or the time of the
    /// answer.
    pub last_seen: Option<Timestamp>,
    /// The approved routes, including those of an exit node. `None`: not reported, which is not the same as
    /// none (a credential may lack the scope for routes).
    pub enabled_routes: Option<RouteSet>,
    /// The routes that the machine advertises. `None`: not reported.
    pub advertised_routes: Option<RouteSet>,
    /// Why tailnet lock keeps it out of the tailnet; empty if it does not.
    pub lock_error: String,
    /// The fields that could not be read. What stands in their place decides nothing.
    pub unreadable: UnreadableFields,
}

impl Device {
    /// Whether a fact differs that selectors use.
    #[must_use]
    pub fn facts_differ(&self, other: &Self) -> bool {
        // All fields by name, so that the compiler notices a new one.
        let Self {
            node_id,
            legacy_id,
            name,
            hostname,
            user,
            tags,
            os,
            client_version,
            update_available,
            ephemeral,
            created,
            external,
            expires,
            last_seen,
            unreadable,
            // No selector uses the following.
            ipv4: _,
            authorized: _,
            key_expiry_disabled: _,
            connected: _,
            enabled_routes: _,
            advertised_routes: _,
            lock_error: _,
        } = self;
        // The times count too: an expression can compare them.
        let times = (created, expires, last_seen);
        *node_id != other.node_id
            || *legacy_id != other.legacy_id
            || *name != other.name
            || *hostname != other.hostname
            || *user != other.user
            || *tags != other.tags
            || *os != other.os
            || *client_version != other.client_version
            || (*update_available, *ephemeral, *external)
                != (other.update_available, other.ephemeral, other.external)
            || *unreadable != other.unreadable
            || times != (&other.created, &other.expires, &other.last_seen)
    }

    /// An authorized device of which nothing else is known.
    #[must_use]
    pub fn plain(node_id: NodeId) -> Self {
        Self {
            node_id,
            legacy_id: String::new(),
            name: String::new(),
            hostname: String::new(),
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
            lock_error: String::new(),
            unreadable: UnreadableFields::default(),
        }
    }

    /// The label of its MagicDNS name; its nodeId if the name cannot be read.
    #[must_use]
    pub fn label(&self) -> DeviceLabel {
        if self.is_unknown(DeviceField::Name) {
            return DeviceLabel::reported(self.node_id.as_str());
        }
        DeviceLabel::reported(&self.name)
    }

    /// Whether a field could not be read.
    #[must_use]
    pub fn is_unknown(&self, field: DeviceField) -> bool {
        self.unreadable.has(field)
    }

    /// What could not be read, for a report; `None` if everything could.
    #[must_use]
    pub fn unread(&self) -> Option<UnreadableDevice> {
        (!self.unreadable.is_empty()).then(|| UnreadableDevice {
            device: self.node_id.to_string(),
            fields: self.unreadable.names(),
        })
    }

    /// Whether `addr` is its IPv4 address.
    #[must_use]
    pub fn holds(&self, addr: Ipv4Addr) -> bool {
        self.ipv4 == Some(addr)
    }
}
