//! The values that the stages pass on.

mod change;
mod context;
mod desired;
mod device_index;
mod policy;
mod policy_input;

pub use change::{Change, Difference, Field, Hold, Why};
pub use context::PlanContext;
pub use desired::DesiredSettings;
pub use device_index::DeviceIndex;
pub use policy::{
    AttributesOwnership, Deletion, DeviceTarget, Disruption, Identity, ListOwnership, Mode,
    Ownership, Policy, PolicyKey, PolicyRecord, Rank, ReconcileRequest, Suspender, Target,
};
pub use policy_input::{PolicyInput, StatusState};
