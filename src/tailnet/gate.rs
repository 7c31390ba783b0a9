//! What may be done at all: whether this process leads, is connected, and knows everything that it needs.

use std::collections::BTreeSet;

use super::{ApprovedPlan, Failure, Retry, Term, mutants::mutant, observed::Observed};
use crate::{model::Reason, plan::Refusal, tailscale::Ability};

/// The conditions that concern the whole tailnet.
#[derive(Debug)]
pub(super) struct Gate {
    /// The term in which it may write.
    term: Option<Term>,
    stopping: bool,
    connection: Result<(), Failure>,
    policies_listed: bool,
    /// The scopes that the credential is known to lack.
    missing_scopes: BTreeSet<Ability>,
    /// The approved plan, if only that is carried out.
    approved_plan: Option<ApprovedPlan>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            term: None,
            stopping: false,
            connection: Err(Failure {
                reason: Reason::Progressing,
                message: "The controller is connecting.".to_owned(),
                retry: Retry::Later,
                unknown_outcome: false,
            }),
            policies_listed: false,
            missing_scopes: BTreeSet::new(),
            approved_plan: None,
        }
    }
}

impl Gate {
    /// Only the changes of an approved plan may be made.
    pub fn for_approved_plan(approved: ApprovedPlan) -> Self {
        Self {
            approved_plan: Some(approved),
            ..Self::default()
        }
    }

    /// The approved plan, if only that is carried out.
    pub const fn approved_plan(&self) -> Option<&ApprovedPlan> {
        self.approved_plan.as_ref()
    }

    /// Starts a term of leadership, or ends one. Returns whether it is another one.
    pub fn set_term(&mut self, term: Option<Term>) -> bool {
        std::mem::replace(&mut self.term, term) != term
    }

    /// Nothing new is begun from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// There is a connection, or none.
    pub fn connect(&mut self, connected: Result<(), Failure>) {
        self.connection = connected;
    }

    /// All policies that existed at the start are known.
    pub fn note_policies_listed(&mut self) {
        self.policies_listed = true;
    }

    /// Notes the scopes that the credential lacks.
    pub fn note_missing_scopes(&mut self, missing: BTreeSet<Ability>) {
        self.missing_scopes = missing;
    }

    /// Whether this process may write.
    pub const fn leads(&self) -> bool {
        self.term.is_some()
    }

    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub const fn is_connected(&self) -> bool {
        self.connection.is_ok()
    }

    /// Why there is no connection, if so.
    pub const fn disconnected(&self) -> Option<&Failure> {
        match &self.connection {
            Ok(()) => None,
            Err(failure) => Some(failure),
        }
    }

    pub const fn has_listed_policies(&self) -> bool {
        self.policies_listed
    }

    pub fn missing_scopes(&self) -> &BTreeSet<Ability> {
        &self.missing_scopes
    }

    /// Why the API does not answer or there is no connection, once that is certain enough to report it on
    /// every policy.
    pub fn outage<'a>(&'a self, observed: &'a Observed) -> Option<&'a Failure> {
        // The connection first: without one, the lists fail for that reason.
        self.disconnected().or(observed.polling().outage())
    }

    /// Whether the list of devices may be read.
    pub const fn may_read(&self) -> bool {
        !self.stopping && self.is_connected()
    }

    /// Whether a list of devices is read and all policies are handed over.
    pub fn may_decide(&self, observed: &Observed) -> bool {
        // A policy that is still unknown may own what another one is about to set.
        self.policies_listed && observed.lists() > 0
    }

    /// Whether a write may be in flight. While the list fails, or has not been read in this term, nothing is
    /// sent but the poll.
    pub fn may_write(&self, observed: &Observed) -> bool {
        (self.leads() || mutant!(LeadershipIsNotChecked))
            && self.is_connected()
            && observed.polling().is_closed()
    }

    /// Whether anything but the poll may be sent.
    pub fn may_send(&self, observed: &Observed) -> bool {
        !self.stopping && self.may_write(observed)
    }

    /// Whether two complete lists can be compared. Before that, a device that the first list lacks may still
    /// exist. A run of an approved plan needs one list only: it compares the list with that plan.
    pub const fn can_compare_lists(&self, observed: &Observed) -> bool {
        observed.lists() > 1 || self.approved_plan.is_some()
    }

    /// Whether it is too early to report that a policy is not allowed: not everything has been listed, or its
    /// namespace is so new that its labels are unknown.
    pub fn may_be_allowed_yet(&self, refusal: &Refusal) -> bool {
        match refusal {
            // No label and no other object can make an invalid policy valid.
            Refusal::Invalid(_) => false,
            Refusal::NotAllowed(forbidden) => forbidden.labels_unknown || !self.policies_listed,
        }
    }

    /// Whether the deletion of a policy may end. This needs no list and no connection.
    pub const fn may_end_deletions(&self) -> bool {
        // Without a connection too: a finalizer must not wait for an API that never answers.
        self.leads() && self.policies_listed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn open() -> (Gate, Observed) {
        let (mut gate, mut observed) = (Gate::default(), Observed::default());
        gate.set_term(Some(Term::FIRST));
        gate.note_policies_listed();
        gate.connect(Ok(()));
        let mut rng = fastrand::Rng::with_seed(1);
        let now = crate::tailnet::Now {
            monotonic: Duration::ZERO,
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        observed.poll_succeeded(now, Duration::from_mins(1), &mut rng);
        (gate, observed)
    }

    #[test]
    fn nothing_is_done_before_everything_is_known() {
        let (gate, observed) = (Gate::default(), Observed::default());
        assert!(!gate.leads() && !gate.may_read());
        assert!(!gate.may_decide(&observed) && !gate.may_send(&observed));
        assert!(!gate.may_end_deletions());
        let reason = gate.outage(&observed).map(|failure| failure.reason);
        assert_eq!(reason, Some(Reason::Progressing));
        let (gate, observed) = open();
        assert!(gate.may_read() && gate.may_decide(&observed) && gate.may_send(&observed));
        assert_eq!(gate.outage(&observed), None);
    }

    #[test]
    fn a_process_that_does_not_lead_decides_and_sends_nothing() {
        let (mut gate, observed) = open();
        assert!(!gate.set_term(Some(Term::FIRST)));
        assert!(gate.set_term(None));
        assert!(gate.may_decide(&observed) && gate.may_read());
        assert!(!gate.may_write(&observed) && !gate.may_end_deletions());
    }

    #[test]
    fn while_stopping_requests_in_flight_end_and_none_begins() {
        let (mut gate, observed) = open();
        gate.stop();
        assert!(gate.may_write(&observed));
        assert!(!gate.may_send(&observed) && !gate.may_read());
    }

    #[test]
    fn while_the_list_fails_nothing_else_is_sent_and_deletions_still_end() {
        let (mut gate, mut observed) = open();
        let failure = Gate::default().disconnected().cloned().unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        observed.poll_failed(Duration::ZERO, failure.clone(), &mut rng);
        assert!(gate.may_read() && !gate.may_send(&observed));
        gate.connect(Err(failure));
        assert!(!gate.may_read() && gate.may_end_deletions());
    }
}
