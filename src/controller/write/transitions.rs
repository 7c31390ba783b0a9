//! Reports each transition of `Ready`'s reason once, as an Event and a log line.
//!
//! What concerns the whole tailnet is reported on the tailnet alone. While it lasts, the policies wait, and
//! afterwards each reports only what has changed for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::event::{Event, normal, warning};
use crate::{
    api::{
        Reason,
        conditions::{READY, needs_person},
    },
    tailnet::{PolicyReport, State},
};

/// The reasons that policies have because of their tailnet or of a start of the controller.
const OF_TAILNET: [Reason; 6] = [
    Reason::NotStarted,
    Reason::CredentialsMissing,
    Reason::CredentialRejected,
    Reason::ApiUnreachable,
    Reason::RateLimited,
    Reason::TailnetUnavailable,
];

/// The reasons whose Event comes with the plan that is held, and its command.
const HELD: [Reason; 2] = [Reason::AwaitingApproval, Reason::LimitHeld];

/// The reasons before an interruption, for each object that has one now; `None` if unknown.
#[derive(Debug, Default)]
pub(super) struct Transitions(Mutex<HashMap<String, Option<String>>>);

impl Transitions {
    /// The Event of a policy whose status has changed.
    pub fn of_policy(
        &self,
        uid: &str,
        (old, new): (&[Condition], &[Condition]),
        report: &PolicyReport,
    ) -> Option<Event> {
        let now = ready(new)?;
        // A tailnet that does not exist can have no Event.
        let is_tailnets = match &report.state {
            State::Starting => true,
            State::Unavailable(failure) => failure.reason != Reason::TailnetNotFound,
            _ => is_one_of(&OF_TAILNET, &now.reason),
        };
        let before = match ready(old) {
            None => Some(String::new()),
            Some(old) => (!is_one_of(&OF_TAILNET, &old.reason)).then(|| old.reason.clone()),
        };
        let is_new = self.is_new(uid, before, now, is_tailnets);
        // The frozen plan has an Event of its own, with its command.
        (is_new && !is_one_of(&HELD, &now.reason)).then(|| event(now))
    }

    /// The Event of a tailnet whose status has changed.
    pub fn of_tailnet(&self, uid: &str, old: &[Condition], new: &[Condition]) -> Option<Event> {
        const STARTING: [Reason; 2] = [Reason::NotStarted, Reason::Progressing];
        let now = ready(new)?;
        let before = match ready(old) {
            None => Some(String::new()),
            Some(old) => (!is_one_of(&STARTING, &old.reason)).then(|| old.reason.clone()),
        };
        let is_starting = is_one_of(&STARTING, &now.reason);
        self.is_new(uid, before, now, is_starting)
            .then(|| event(now))
    }

    /// An object is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Whether to report a reason. `before`: the last one, if it is known. An interruption is not reported, and
    /// neither is its end if the reason from before it returns.
    fn is_new(
        &self,
        uid: &str,
        before: Option<String>,
        now: &Condition,
        is_interruption: bool,
    ) -> bool {
        let mut interrupted = self.lock();
        if is_interruption {
            interrupted.entry(uid.to_owned()).or_insert(before);
            return false;
        }
        match interrupted.remove(uid).unwrap_or(before) {
            Some(before) => before != now.reason,
            // The process that reported the interruption has ended: only a failure is worth an Event.
            None => now.status == "False",
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == READY)
}

fn is_one_of(reasons: &[Reason], reason: &str) -> bool {
    reasons.iter().any(|it| it.as_str() == reason)
}

fn event(ready: &Condition) -> Event {
    // A selector without a device is legitimate, but most often a mistake that nothing else shows.
    let must_act = needs_person(ready) || ready.reason == Reason::NoDevices.as_str();
    let new = if must_act { warning } else { normal };
    new(&ready.reason, "Reconcile", &ready.message).of_state()
}
