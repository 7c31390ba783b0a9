use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::{DeviceLabel, NodeId, RouteSet, TagSet};

/// A device as the list reports it: what the plan compares, no more.
///
/// Posture attributes are not part of it: the API gives them by a request of their own
/// ([`super::Attributes`]).
#[expect(clippy::struct_excessive_bools, reason = "the API's own fields")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The preferred id.
    pub node_id: NodeId,
    /// The older numeric id, under which a manifest may name the device too.
    pub legacy_id: String,
    /// The MagicDNS name, fully qualified (`pangolin.tailfe8c.ts.net`).
    pub name: String,
    /// What the machine calls itself. Does not follow a rename.
    pub hostname: String,
    /// The login name of the user who registered it; the owner as long as it has no tags.
    pub user: String,
    /// Its tags; empty for a device that a user owns.
    pub tags: TagSet,
    /// Its Tailscale IPv4 address. A device without one is possible (a tailnet without IPv4).
    pub ipv4: Option<Ipv4Addr>,
    /// The operating system, as the machine says.
    pub os: String,
    /// The version of its client, as the machine says.
    pub client_version: String,
    /// Whether there is a newer client for it.
    pub update_available: bool,
    /// Whether it leaves the tailnet by itself when it goes offline.
    pub ephemeral: bool,
    /// When it joined the tailnet. `None`: not told, as for external devices.
    pub created: Option<Timestamp>,
    /// Whether it may take part in the tailnet.
    pub authorized: bool,
    /// Shared in from another tailnet: nothing about it can be changed from here.
    pub external: bool,
    /// Whether its key never expires.
    pub key_expiry_disabled: bool,
    /// When its key expires, or would if expiry were enabled. `None`: never set.
    pub expires: Option<Timestamp>,
    /// Whether it is connected to the control server now. `None`: not told.
    pub connected: Option<bool>,
    /// When it was last connected. `None` while it is connected or where it never was.
    pub last_seen: Option<Timestamp>,
    /// The routes that are approved, those of an exit node included. `None`: not told, which is
    /// not the same as none (a credential may lack the scope for routes).
    pub enabled_routes: Option<RouteSet>,
    /// The routes that the machine offers. `None`: not told.
    pub advertised_routes: Option<RouteSet>,
}

impl Device {
    /// Whether anything differs by which selectors choose devices.
    #[must_use]
    pub fn facts_differ(&self, other: &Self) -> bool {
        // Each by its name, so that a new field cannot be forgotten here.
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
            ipv4: _,
            authorized: _,
            key_expiry_disabled: _,
            connected: _,
            enabled_routes: _,
            advertised_routes: _,
        } = self;
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
            || times != (&other.created, &other.expires, &other.last_seen)
    }

    /// The label of its MagicDNS name: what people call it.
    #[must_use]
    pub fn label(&self) -> DeviceLabel {
        DeviceLabel::reported(&self.name)
    }

    /// Whether `addr` is its IPv4 address.
    #[must_use]
    pub fn holds(&self, addr: Ipv4Addr) -> bool {
        self.ipv4 == Some(addr)
    }
}
