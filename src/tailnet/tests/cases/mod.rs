//! One short history for each rule, with exact expectations.

pub mod actions;
mod approvals;
mod approved_plan;
mod broken;
mod budget;
mod causes;
pub mod clears;
mod contested;
mod counted;
mod device_lookups;
mod due;
mod evaluated;
mod expired;
mod faulty;
mod fields;
mod flapping;
mod fleets;
mod guarded;
mod late;
mod limits;
mod never_sent;
pub mod owned;
mod released;
mod replaced;
mod shares;
mod short_lists;
mod short_plans;
mod sign_ins;
mod successors;
mod tenants;
mod unreadable;

use super::simulation::{
    Broken, CLEAR_TIMEOUT, Event, Kept, World, builders, model, told::EngineInputs,
};
