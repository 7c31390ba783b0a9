//! What is reported of the devices that a policy has released.

use crate::plan::Difference;

/// The progress of clearing the devices that a policy has released.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct ClearReport {
    /// The released devices that are not cleared yet.
    pub left: usize,
    /// The targeted devices on which released fields are not cleared yet.
    pub fields: usize,
    /// Some of the differences that remain on them.
    pub differences: Vec<Difference>,
    /// The number of known differences.
    pub different: usize,
    /// Why clearing does not proceed, if so.
    pub blocker: Option<String>,
}
