//! A new leader starts from what is stored after the lease was won, and from nothing older.
//!
//! A watch may lag behind, and be in backoff for half a minute after an outage. Meanwhile another
//! leader may have made changes, policies may have been edited or deleted, a tailnet suspended, a
//! namespace relabelled. So all watches restart when the lease is won, and the engines learn of the
//! term only when each of them has listed everything again: the API server answers a list without a
//! resource version from its store ([`kube::runtime::watcher::ListSemantic::MostRecent`]). Previous
//! leaders write nothing once the lease is won; the API server refuses their writes in flight, as a
//! status is written over the version that it was derived from ([`crate::controller::write`]).

use std::collections::BTreeSet;

use super::lease::Leadership;
use crate::{controller::watch::event::Source, tailnet::Term};

/// The term that was won, and the lists that are still missing.
#[derive(Debug)]
pub(in crate::controller) struct Handover {
    sources: BTreeSet<Source>,
    unlisted: BTreeSet<Source>,
    term: Option<Term>,
    /// Whether everything has ever been listed.
    complete_once: bool,
}

impl Handover {
    /// `count`: the watches of policies, and of namespaces.
    pub fn new(count: usize) -> Self {
        let policies = (0..count).map(Source::Policies);
        let namespaces = (0..count).map(Source::Namespaces);
        let sources: BTreeSet<Source> = policies
            .chain(namespaces)
            .chain([Source::Tailnets])
            .collect();
        Self {
            unlisted: sources.clone(),
            sources,
            term: None,
            complete_once: false,
        }
    }

    /// The lease was won or lost. When it is won, everything must be listed again.
    pub fn begin(&mut self, term: Option<Term>) {
        self.term = term;
        if term.is_some() {
            self.unlisted.clone_from(&self.sources);
        }
    }

    /// A watch has listed everything. Returns whether it was the last one of the first start.
    pub fn listed(&mut self, source: Source) -> bool {
        self.unlisted.remove(&source);
        let first = self.unlisted.is_empty() && !self.complete_once;
        self.complete_once |= first;
        first
    }

    /// Whether everything has been listed since this process started.
    pub fn complete_once(&self) -> bool {
        self.complete_once
    }

    /// The term, once everything has been listed since it was won.
    pub fn ready(&self) -> Option<Term> {
        self.term.filter(|_| self.unlisted.is_empty())
    }
}

/// Passes each term on, until `tell` returns `false`.
pub(in crate::controller) async fn forward_terms(
    mut leadership: Leadership,
    tell: impl Fn(Option<Term>) -> bool,
) {
    let mut known = None;
    loop {
        known = leadership.next(known).await;
        if !tell(known) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_all(handover: &mut Handover) {
        for source in [Source::Policies(0), Source::Namespaces(0), Source::Tailnets] {
            handover.listed(source);
        }
    }

    #[test]
    fn a_term_starts_only_after_everything_was_listed_since_it_was_won() {
        let first = Some(Term::FIRST);
        let mut handover = Handover::new(1);
        list_all(&mut handover);
        assert_eq!(handover.ready(), None);
        // The lists from before count for nothing.
        handover.begin(first);
        handover.listed(Source::Policies(0));
        handover.listed(Source::Namespaces(0));
        assert_eq!(handover.ready(), None);
        handover.listed(Source::Tailnets);
        assert_eq!(handover.ready(), first);
        handover.begin(None);
        assert_eq!(handover.ready(), None);
    }

    #[test]
    fn a_term_that_is_lost_before_the_lists_are_complete_never_starts() {
        let mut handover = Handover::new(1);
        handover.begin(Some(Term::FIRST));
        handover.begin(None);
        list_all(&mut handover);
        assert_eq!(handover.ready(), None);
        handover.begin(Some(Term::FIRST.next()));
        assert_eq!(handover.ready(), None);
        list_all(&mut handover);
        assert_eq!(handover.ready(), Some(Term::FIRST.next()));
    }

    #[test]
    fn first_complete_list_is_reported_once() {
        let mut handover = Handover::new(1);
        handover.listed(Source::Policies(0));
        handover.listed(Source::Namespaces(0));
        assert!(!handover.complete_once());
        assert!(handover.listed(Source::Tailnets));
        handover.begin(Some(Term::FIRST));
        list_all(&mut handover);
        assert!(!handover.listed(Source::Tailnets) && handover.complete_once());
    }
}
