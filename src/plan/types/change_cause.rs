use std::fmt;

use jiff::Timestamp;

use crate::model::Device;

/// Why a device differs from what is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeCause {
    /// The policy is new or was edited, or another manifest gave it the field.
    Declared,
    /// The device was in sync, and someone changed it.
    Drift,
    /// The device is new to the policy.
    Joined,
    /// The policy has released the device and clears what it has set.
    Released,
}

impl ChangeCause {
    /// As it stands in JSON, in logs, and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "Declared",
            Self::Drift => "Drift",
            Self::Joined => "Joined",
            Self::Released => "Released",
        }
    }
}

impl fmt::Display for ChangeCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the status of a policy says about the time before this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// No status says that this generation of the policy was ever in sync.
    New,
    /// The policy was in sync.
    InSync {
        /// The time of the last change that the status tells.
        since: Timestamp,
    },
}

impl History {
    /// The cause of a difference on a device that this process has not compared before.
    #[must_use]
    pub fn cause(self, device: &Device) -> ChangeCause {
        match self {
            Self::New => ChangeCause::Declared,
            // No earlier process can have managed it.
            Self::InSync { since } if device.created.is_some_and(|created| created > since) => {
                ChangeCause::Joined
            }
            Self::InSync { .. } => ChangeCause::Drift,
        }
    }
}
