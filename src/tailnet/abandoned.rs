//! The settings that a deleted policy leaves behind, once the engine has given up clearing them.

use crate::plan::ManagedSettings;

/// The settings that a deleted policy leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Abandoned {
    /// Some of the devices.
    pub devices: Vec<String>,
    /// How many there are.
    pub total: usize,
    /// The settings that stay on one or more of them.
    pub settings: ManagedSettings,
    /// Why.
    pub why: String,
}
