//! Counts Events that repeat: an object that goes back and forth costs one Event with a count.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ring::digest::{Context, SHA256};

use super::event::Event;

/// How long an Event counts its repetitions. A later one is an Event of its own.
pub(super) const WINDOW: Duration = Duration::from_mins(10);

/// What makes two Events the same: a digest of the object, the reason and the note. A rollout has an Event for each
/// policy, and the texts would take several hundred bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Occasion([u8; 32]);

impl Occasion {
    pub fn new(uid: &str, event: &Event) -> Self {
        let mut all = Context::new(&SHA256);
        for part in [uid, event.reason(), &without_request_ids(event.note())] {
            all.update(part.as_bytes());
            // Ends the part: none of them has a control character.
            all.update(&[0]);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(all.finish().as_ref());
        Self(digest)
    }
}

/// A note without what differs from one request to the next.
fn without_request_ids(note: &str) -> String {
    let mut words = note.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if word == "request" {
            words.next();
        }
    }
    kept.join(" ")
}

/// What to do with an Event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Occurrence {
    /// Write it.
    First,
    /// It is counted. `is_scheduled`: the count will be written anyway.
    Repeated { is_scheduled: bool },
}

#[derive(Debug)]
struct Seen {
    /// The name of the Event, once it is written.
    name: Option<Box<str>>,
    since: Instant,
    count: i32,
    is_scheduled: bool,
}

/// The Events of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    seen: HashMap<Occasion, Seen>,
    pruned: Option<Instant>,
    /// Whether a task forgets them once their time is over.
    is_pruned_later: bool,
}

impl Repeats {
    /// Counts an Event.
    pub fn note(&mut self, occasion: &Occasion, now: Instant) -> Occurrence {
        self.prune(now);
        if let Some(seen) = self.seen.get_mut(occasion)
            && (seen.is_scheduled || now.duration_since(seen.since) < WINDOW)
        {
            seen.count = seen.count.saturating_add(1);
            let is_scheduled = std::mem::replace(&mut seen.is_scheduled, true);
            return Occurrence::Repeated { is_scheduled };
        }
        let first = Seen {
            name: None,
            since: now,
            count: 1,
            is_scheduled: false,
        };
        self.seen.insert(*occasion, first);
        Occurrence::First
    }

    /// The Event of this name was written.
    pub fn written(&mut self, occasion: &Occasion, name: &str) {
        if let Some(seen) = self.seen.get_mut(occasion) {
            seen.name = Some(name.into());
        }
    }

    /// The Event was not written and is tried again. Returns whether that is scheduled already.
    pub fn retry(&mut self, occasion: &Occasion) -> bool {
        let seen = self.seen.get_mut(occasion);
        seen.is_none_or(|seen| std::mem::replace(&mut seen.is_scheduled, true))
    }

    /// The name of the Event, and how often it occurred.
    pub fn take_count(&mut self, occasion: &Occasion) -> Option<(Option<Box<str>>, i32)> {
        let seen = self.seen.get_mut(occasion)?;
        seen.is_scheduled = false;
        Some((seen.name.clone(), seen.count))
    }

    /// Whether the caller must start a task that forgets them later: there is none yet.
    pub fn start_pruning(&mut self) -> bool {
        !std::mem::replace(&mut self.is_pruned_later, true)
    }

    /// Forgets those whose time is over. Returns whether others are left.
    pub fn prune_later(&mut self, now: Instant) -> bool {
        self.pruned = None;
        self.prune(now);
        self.seen.shrink_to_fit();
        self.is_pruned_later = !self.seen.is_empty();
        self.is_pruned_later
    }

    /// Once a minute, as each Event passes here.
    fn prune(&mut self, now: Instant) {
        let every = Duration::from_mins(1);
        if self
            .pruned
            .is_none_or(|last| now.duration_since(last) >= every)
        {
            self.pruned = Some(now);
            self.seen
                .retain(|_, seen| seen.is_scheduled || now.duration_since(seen.since) < WINDOW);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::write::event::{normal, warning};

    #[test]
    fn a_state_that_returns_is_counted_and_written_once_until_the_window_ends() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let of = |note: &str| {
            let event = warning("ApiError", "Reconcile", note).of_state();
            Occasion::new("1", &event)
        };
        assert_eq!(
            repeats.note(&of("failed (HTTP 500, request 1x)"), start),
            Occurrence::First
        );
        repeats.written(&of("failed (HTTP 500, request 1x)"), "fra.1");
        for is_scheduled in [false, true, true] {
            let again = repeats.note(&of("failed (HTTP 500, request 2x)"), start);
            assert_eq!(again, Occurrence::Repeated { is_scheduled });
        }
        let (name, count) = repeats
            .take_count(&of("failed (HTTP 500, request 3x)"))
            .unwrap();
        assert_eq!((name.as_deref(), count), (Some("fra.1"), 4));
        assert_eq!(
            repeats.note(&of("failed (HTTP 500, request 4x)"), start + WINDOW),
            Occurrence::First
        );
    }

    #[test]
    fn nothing_is_kept_of_a_burst_once_its_window_has_ended() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.start_pruning() && !repeats.start_pruning());
        for number in 0..1_000 {
            let event = normal("TagsChanged", "Change", "tags: a → b");
            repeats.note(&Occasion::new(&number.to_string(), &event), start);
        }
        assert!(repeats.prune_later(start + WINDOW / 2));
        assert!(!repeats.prune_later(start + WINDOW));
        assert_eq!(repeats.seen.capacity(), 0);
        assert!(repeats.start_pruning());
    }

    #[test]
    fn changes_with_other_words_are_other_events() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for note in ["tags: a → b", "tags: b → a"] {
            let event = normal("TagsChanged", "Change", note);
            let first = repeats.note(&Occasion::new("1", &event), now);
            assert_eq!(first, Occurrence::First);
        }
    }
}
