//! From wishes and observed devices to calls: pure functions on plain data.
//!
//! ```text
//! spec ─► parse ─► Policy ─┐                ┌─► claims ─► difference ─► guard ─► order ─► calls
//!                          ├─► bind (which) ┤    (who decides)  (what)   (what is held)
//! list of the API ─► Fleet ┘                └─► nobody: why
//! ```
//!
//! No async, no clock, no randomness, no I/O: the time is an argument. The order in which policies
//! arrive changes nothing. What a guard holds stays in the plan with its reason.

mod acts;
mod approval;
mod bind;
#[cfg(test)]
mod cases;
mod change;
mod claims;
mod clashes;
mod clear;
mod difference;
mod effect;
mod expression;
mod fleet;
mod guard;
mod guardrails;
mod impact;
mod limit;
mod lists;
mod managed;
mod managed_routes;
mod order;
mod owned;
mod parse;
mod partial;
#[cfg(test)]
mod permitted;
mod policy;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod scenes;
mod select;
mod surroundings;
mod survey;
mod table;
#[cfg(test)]
mod tailnets;
#[cfg(test)]
mod tests;

pub use acts::{
    Act, ActRecords, ClockSkew, DeletionRecord, ExpiryRecord, MOST_EXPIRIES, Missed, Reap, Reaping,
    Stage, expiry, reaping,
};
pub use approval::{Approvals, ApprovedOn, Batch, Changes, Permit, Permits, PlanHash};
pub use bind::{Binding, Bound, Owner, bind, bind_policy, may_change, remembered};
pub use change::{Change, Difference, Field, Hold, Why};
pub use claims::{Claims, Conflict};
pub use clashes::{Clashes, Dispute, Form, Forms, Want};
pub use clear::{Belongings, Holdings, LetGo, MOST_HELD};
pub use difference::{DevicePlan, plan_device};
pub use effect::{apply, apply_attributes};
pub use expression::{Expression, ExpressionFault};
pub use fleet::Fleet;
pub use guardrails::{
    Allowance, Entry, Forbidden, Guardrails, GuardrailsSource, Guards, Labels, Parted, Reach,
    Reaches, Refusal, Scope,
};
pub use impact::Impact;
pub use limit::Wants;
pub use lists::ListClaim;
pub use managed_routes::PartlyManaged;
pub use order::{AttributeWrites, Call, next_call, still_planned};
pub use owned::{Digest, OwnedGroup, OwnedKeys, OwnedRecord, Room};
pub use parse::{Declared, Standing, parse, parse_readable, parse_selector, parse_target};
pub use policy::{
    AttributesExtent, Deletion, DeviceTarget, Disruption, Extent, Identity, LookRequest, Memory,
    Mode, Ownership, Policy, PolicyKey, Rank, Suspender, Target, Wishes,
};
pub use select::{Glob, Selector};
pub use surroundings::Surroundings;
pub use survey::{Survey, survey, survey_within};
pub use table::{Style, lines, table, why};
