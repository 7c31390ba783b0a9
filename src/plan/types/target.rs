//! The devices that a policy targets.

use std::fmt;

use crate::{
    model::{NodeId, TagSet},
    plan::Selector,
};

/// The devices that a policy targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One device.
    Device(DeviceTarget),
    /// Every device that the selector matches.
    Selector(Selector),
}

/// The one device that a policy targets, and the conditions on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTarget {
    /// How it is named.
    pub identity: Identity,
    /// Tags that it must have, all of them.
    pub tags: TagSet,
    /// Users (login names), one of whom must own it. Empty: anybody.
    pub users: Vec<String>,
}

impl DeviceTarget {
    /// Whether a record names the device as this target does.
    #[must_use]
    pub fn names(&self, named: &str) -> bool {
        self.identity.to_string() == named
    }
}

/// How a manifest names its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By its `nodeId`.
    NodeId(NodeId),
    /// By its older numeric id.
    LegacyId(String),
    /// By its MagicDNS name: the label, or fully qualified.
    Name(String),
    /// By the hostname that the machine reports.
    Hostname(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeId(id) => write!(f, "nodeId {id}"),
            Self::LegacyId(id) => write!(f, "id {id}"),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
        }
    }
}
