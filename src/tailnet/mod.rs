//! One engine for each tailnet: it owns the snapshot and decides what to do next.
//!
//! [`Engine`] is a state machine without I/O: it takes [`Input`]s with the time at which they arrived, and
//! returns [`Effect`]s: requests to send and reports to write. [`drive`] connects it to a client, a clock and
//! a reporter. So the same engine serves the controller, the demo, and a simulation with its own clock and
//! seed.
//!
//! Knows nothing of Kubernetes.

mod abandoned;
mod absence;
mod actions;
mod approved_plan;
mod basis;
mod change_budget;
mod clear_report;
mod clock;
mod contest;
mod deadline;
mod deletions;
mod device_lookup;
mod device_report;
mod device_state;
mod devices;
mod dirty;
mod drive;
mod engine;
mod evaluation;
mod exchange;
mod failure;
mod fair;
mod flapping;
mod gate;
mod halves;
mod held_plan;
mod inbox;
mod lanes;
mod listed;
mod matching;
mod messages;
mod mutants;
mod namespace_bucket;
mod notification;
mod now;
mod observed;
mod outbox;
mod pending;
mod policy_entry;
mod policy_set;
mod polling;
mod read;
mod read_shares;
mod reconcile_budget;
mod records;
mod release;
mod report;
mod report_queue;
mod report_retries;
mod reporter;
mod requests;
mod reserve;
mod selectors;
mod settings;
mod sign_ins;
mod status_book;
mod term;
#[cfg(test)]
mod tests;
mod timers;
mod window;
mod write_progress;

pub use abandoned::Abandoned;
pub use actions::{ActionDetail, ActionReport, MissedExpiry};
pub use approved_plan::{ApprovedPlan, RemainingChange};
pub use change_budget::{LimitedPolicy, TailnetDeclared};
pub use clear_report::ClearReport;
pub use deletions::RecentDeletions;
pub use device_lookup::{DeviceLookup, Doubt, LookupResult};
pub use device_report::{DeviceReport, Successor};
pub use drive::drive;
pub use engine::Engine;
pub use failure::{Failure, Retry};
pub(crate) use failure::{backoff, jittered};
pub use held_plan::HeldPlan;
pub use inbox::Message;
pub use messages::{Answer, Effect, Input, Request, Ticket};
pub use notification::Notification;
pub use now::Now;
pub use pending::PendingChanges;
pub use report::{PolicyReport, State, TailnetReport, shows_poll};
pub use reporter::{Backlog, Recorded, Reporter};
pub use selectors::{DETAILS, FlappingDevices, SelectorErrors, SelectorReport};
pub use settings::Settings;
pub use term::Term;
pub use window::{RecentChanges, ReservedDevices};
