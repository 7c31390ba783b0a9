//! For each tailnet one engine that owns the snapshot and decides what to do next.
//!
//! [`Engine`] is a state machine without I/O: it takes [`Input`]s with the time at which they
//! came, and gives [`Effect`]s: requests to send, reports to write. [`drive`] connects it to a
//! client, a clock and a place for reports. The same engine so serves the controller, the demo,
//! and a simulation with a clock and a seed of its own.
//!
//! Knows nothing of Kubernetes.

mod absence;
mod acts;
mod announcement;
mod approvals;
mod asks;
mod binding;
mod clashes;
mod clear;
mod clock;
mod contest;
mod deadline;
mod deleting;
mod deletions;
mod drive;
mod edited;
mod engine;
mod evaluation;
mod exchange;
mod failure;
mod fair;
mod flapping;
mod fleet;
mod guardrails;
mod held;
mod inbox;
mod inquiry;
mod limit;
mod looks;
mod managed_routes;
mod messages;
mod namespace_bucket;
mod node;
mod once;
mod owned;
mod polling;
mod queues;
mod readers;
mod report;
mod report_queue;
mod report_retries;
mod requests;
mod reserve;
mod schedule;
mod send;
#[cfg(test)]
mod simulation;
mod term;
mod window;
mod writes;

pub use acts::{ActDetail, ActReport, MissedExpiry};
pub use announcement::Announcement;
pub use approvals::HeldPlan;
pub use clear::ClearReport;
pub use deleting::Abandoned;
pub use deletions::RecentDeletions;
pub use drive::{Message, Recorded, Reporter, drive};
pub use engine::{Engine, Settings};
pub use failure::{Failure, Retry};
pub(crate) use failure::{backoff, jittered};
pub use fleet::{DETAILS, FlappingDevices, FleetReport, Unjudged};
pub use inquiry::{Doubt, Finding, Inquiry};
pub use limit::{LimitedPolicy, TailnetDeclared};
pub use messages::{Answer, Effect, Input, Now, Request, Ticket};
pub use once::{Agreed, Undone};
pub use report::{DeviceReport, PolicyReport, State, TailnetReport};
pub use term::Term;
pub use window::{RecentChanges, ReservedDevices};
