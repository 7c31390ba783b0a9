//! The values that the stages pass on.

mod bound;
mod change;
mod change_cause;
mod context;
mod desired;
mod device_index;
mod hold;
mod list_change;
mod mode;
mod owner;
mod policy;
mod policy_input;
mod policy_key;
mod record;
mod target;

pub use crate::model::{AttributesOwnership, Disruption, ListOwnership};
pub use bound::{Bound, Rivals};
pub use change::{Change, Difference, Field, Why};
pub use change_cause::{ChangeCause, History};
pub use context::PlanContext;
pub use desired::{DeclaredSettings, DesiredSettings};
pub use device_index::DeviceIndex;
pub use hold::{Hold, LimitedPlan};
pub use list_change::ListChange;
pub use mode::{Mode, Suspender};
pub use owner::Owner;
pub use policy::{Deletion, Ownership, Policy, Rank};
pub use policy_input::{PolicyInput, StatusState};
pub use policy_key::PolicyKey;
pub use record::{PolicyRecord, ReconcileRequest};
pub use target::{DeviceTarget, Identity, Target};
