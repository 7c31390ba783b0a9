//! The values that the stages pass on.

mod change;
mod context;
mod desired;
mod device_index;
mod list_change;
mod policy;
mod policy_input;

pub use crate::model::{AttributesOwnership, Disruption, ListOwnership};
pub use change::{Change, Difference, Field, Hold, Why};
pub use context::PlanContext;
pub use desired::DesiredSettings;
pub use device_index::DeviceIndex;
pub use list_change::ListChange;
pub use policy::{
    Deletion, DeviceTarget, Identity, Mode, Ownership, Policy, PolicyKey, PolicyRecord, Rank,
    ReconcileRequest, Suspender, Target,
};
pub use policy_input::{PolicyInput, StatusState};
