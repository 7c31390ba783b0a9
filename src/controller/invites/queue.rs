//! The order in which invites are reconciled. No I/O; the time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::ResourceExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::job::{Done, Job, Key};
use crate::{api::TailscaleDeviceInvite, controller::write::object_cache::is_older, tailnet::Term};

/// All watched invites. For each tailnet, one is reconciled at a time: so two objects that declare
/// the same invite can never adopt the same one. A tailnet that answers slowly delays no other.
#[derive(Debug)]
pub(super) struct Queue {
    entries: BTreeMap<Key, Entry>,
    /// The watches that have not listed yet. Until all have, the recorded invites are unknown.
    unlisted: BTreeSet<usize>,
    busy: BTreeSet<String>,
    /// The objects that are being reconciled; cancelled when one is gone or edited meanwhile.
    running: BTreeMap<Key, CancellationToken>,
}

#[derive(Debug)]
struct Entry {
    object: Arc<TailscaleDeviceInvite>,
    source: usize,
    /// When to reconcile it; `None`: not before a change.
    due: Option<Instant>,
    /// Consecutive failed reconciles.
    attempts: u32,
}

impl Queue {
    pub fn new(sources: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            unlisted: (0..sources).collect(),
            busy: BTreeSet::new(),
            running: BTreeMap::new(),
        }
    }

    /// A term of leadership starts or ends: the reconciles of the last one are dropped, and nothing
    /// starts before everything has been listed again.
    pub fn start_term(&mut self, sources: usize, now: Instant) {
        self.unlisted = (0..sources).collect();
        self.busy.clear();
        for obsolete in std::mem::take(&mut self.running).into_values() {
            obsolete.cancel();
        }
        for entry in self.entries.values_mut() {
            entry.due = Some(now);
            entry.attempts = 0;
        }
    }

    /// Stores an object as a watch shows it. A status that we wrote since is newer.
    pub fn seen(&mut self, source: usize, mut object: TailscaleDeviceInvite, now: Instant) {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        self.cancel_unless(&key, |running| {
            running.uid() == object.uid()
                && running.metadata.generation == object.metadata.generation
        });
        let before = self.entries.get(&key).map(|entry| (entry, &entry.object));
        let (mut due, mut attempts) = (Some(now), 0);
        // Another object of the name has its own status and its own failures.
        if let Some((entry, before)) = before
            && before.uid() == object.uid()
        {
            if is_older(&version(&object), &version(before)) {
                object.status.clone_from(&before.status);
                object.metadata.resource_version = Some(version(before));
            }
            // A changed annotation only requests a reconcile.
            let is_asked = before.metadata.generation != object.metadata.generation
                || before.metadata.annotations != object.metadata.annotations;
            // Our own write of the status arrives here too, and must not cause another reconcile.
            if !is_asked {
                (due, attempts) = (entry.due, entry.attempts);
            }
        }
        let object = Arc::new(object);
        let entry = Entry {
            object,
            source,
            due,
            attempts,
        };
        self.entries.insert(key, entry);
    }

    pub fn gone(&mut self, key: &Key) {
        self.cancel_unless(key, |_| false);
        self.entries.remove(key);
    }

    /// Cancels the reconcile of an object, unless it is still for this one.
    fn cancel_unless(&self, key: &Key, still: impl Fn(&TailscaleDeviceInvite) -> bool) {
        let entry = self.entries.get(key);
        if !entry.is_some_and(|entry| still(&entry.object))
            && let Some(running) = self.running.get(key)
        {
            running.cancel();
        }
    }

    /// The complete list of a watch.
    pub fn listed(&mut self, source: usize, names: &BTreeSet<Key>) {
        // The list of one watch says nothing about the namespaces of the others.
        let of_source = self.entries.iter().filter(|(_, it)| it.source == source);
        let gone: Vec<Key> = of_source
            .filter(|(key, _)| !names.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.gone(key);
        }
        self.unlisted.remove(&source);
    }

    /// Takes out the first due object, if its tailnet is free.
    pub fn start(&mut self, term: Term, now: Instant) -> Option<Job> {
        let (due, key) = self.next()?;
        if due > now {
            return None;
        }
        let key = key.clone();
        let entry = self.entries.get_mut(&key)?;
        // An edit during the reconcile sets it again.
        entry.due = None;
        let (object, attempts) = (Arc::clone(&entry.object), entry.attempts + 1);
        self.busy.insert(object.spec.tailnet_name().to_owned());
        let others = self.entries.iter().filter(|(other, _)| **other != key);
        let held = others.filter_map(|(_, other)| other.object.status.as_ref()?.invite_id.clone());
        let others = held.collect();
        let obsolete = CancellationToken::new();
        self.running.insert(key, obsolete.clone());
        Some(Job {
            term,
            object,
            others,
            attempts,
            obsolete,
        })
    }

    /// When the next object is due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.next().map(|(due, _)| due)
    }

    /// A reconcile has ended.
    pub fn finished(&mut self, key: &Key, done: Done, now: Instant) {
        // Before any return: the reconcile of a deleted object occupied its tailnet too.
        self.busy.remove(done.object.spec.tailnet_name());
        self.running.remove(key);
        // The object was deleted meanwhile, so there is nothing to record.
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        // Another one of that name has its own turn.
        if entry.object.uid() != done.object.uid() {
            return;
        }
        // The watch may already have shown a version that is newer than our write.
        if !is_older(&done.version, &version(&entry.object)) {
            let mut object = TailscaleDeviceInvite::clone(&entry.object);
            object.status = Some(done.status);
            object.metadata.resource_version = Some(done.version);
            entry.object = Arc::new(object);
        }
        entry.attempts = if done.failed { entry.attempts + 1 } else { 0 };
        let next = done.pause.map(|pause: Duration| now + pause);
        // It may have been edited meanwhile.
        entry.due = [entry.due, next].into_iter().flatten().min();
    }

    /// What is due first among those whose tailnet is free.
    fn next(&self) -> Option<(Instant, &Key)> {
        if !self.unlisted.is_empty() {
            return None;
        }
        self.entries
            .iter()
            .filter(|(_, entry)| !self.busy.contains(entry.object.spec.tailnet_name()))
            .filter_map(|(key, entry)| Some((entry.due?, key)))
            .min()
    }
}

fn version(object: &TailscaleDeviceInvite) -> String {
    object.resource_version().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{TailnetReference, TailscaleDeviceInviteSpec, TailscaleDeviceInviteStatus};

    fn object(name: &str, tailnet: &str) -> TailscaleDeviceInvite {
        let spec = TailscaleDeviceInviteSpec {
            tailnet_ref: Some(TailnetReference {
                name: tailnet.to_owned(),
            }),
            ..TailscaleDeviceInviteSpec::default()
        };
        let mut object = TailscaleDeviceInvite::new(name, spec);
        object.metadata.namespace = Some("network".to_owned());
        object.metadata.uid = Some(format!("uid of {name}"));
        object.metadata.resource_version = Some("9".to_owned());
        object
    }

    /// Ends a reconcile that found or created this invite.
    fn finish(queue: &mut Queue, job: &Job, invite: &str, now: Instant) {
        let done = Done {
            object: Arc::clone(&job.object),
            status: TailscaleDeviceInviteStatus {
                invite_id: Some(invite.to_owned()),
                ..TailscaleDeviceInviteStatus::default()
            },
            version: "10".to_owned(),
            pause: Some(Duration::from_mins(10)),
            failed: false,
        };
        queue.finished(&job.key(), done, now);
    }

    #[test]
    fn nothing_is_reconciled_before_every_watch_has_listed() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        queue.seen(0, object("a", "default"), now);
        let names = [("network".to_owned(), "a".to_owned())];
        queue.listed(0, &BTreeSet::from(names));
        assert!(queue.start(Term::FIRST, now).is_none() && queue.wake_at().is_none());
        queue.listed(1, &BTreeSet::new());
        assert!(queue.start(Term::FIRST, now).is_some());
    }

    #[test]
    fn second_reconcile_of_a_tailnet_knows_the_invite_of_the_first() {
        let now = Instant::now();
        let mut queue = Queue::new(0);
        for (name, tailnet) in [("a", "default"), ("b", "default"), ("c", "other")] {
            queue.seen(0, object(name, tailnet), now);
        }
        let first = queue.start(Term::FIRST, now).unwrap();
        let elsewhere = queue.start(Term::FIRST, now).unwrap();
        assert_eq!(elsewhere.object.name_any(), "c");
        assert!(queue.start(Term::FIRST, now).is_none());

        finish(&mut queue, &first, "17", now);
        // The watch still shows the object as it was.
        queue.seen(0, object("a", "default"), now);
        let second = queue.start(Term::FIRST, now).unwrap();

        assert_eq!(second.object.name_any(), "b");
        assert!(second.others.contains("17"));
    }

    type Happens = fn(&mut Queue, Instant);

    #[test]
    fn reconcile_is_obsolete_once_its_object_is_edited_or_gone() {
        let now = Instant::now();
        let edited: Happens = |queue, now| {
            let mut edited = object("a", "default");
            edited.metadata.generation = Some(2);
            queue.seen(0, edited, now);
        };
        let listed: Happens = |queue, _| queue.listed(0, &BTreeSet::new());
        let same: Happens = |queue, now| queue.seen(0, object("a", "default"), now);
        let gone: Happens = |queue, _| queue.gone(&("network".to_owned(), "a".to_owned()));
        let happens = [(edited, true), (listed, true), (same, false), (gone, true)];
        for (happens, expected) in happens {
            let mut queue = Queue::new(0);
            queue.seen(0, object("a", "default"), now);
            let job = queue.start(Term::FIRST, now).unwrap();
            happens(&mut queue, now);
            assert_eq!(job.obsolete.is_cancelled(), expected);
        }
    }

    #[test]
    fn a_new_term_waits_for_the_lists_and_starts_from_what_they_show() {
        let now = Instant::now();
        let mut queue = Queue::new(0);
        queue.seen(0, object("a", "default"), now);
        let job = queue.start(Term::FIRST, now).unwrap();
        finish(&mut queue, &job, "17", now);
        queue.start_term(1, now);
        assert!(queue.start(Term::FIRST.next(), now).is_none());
        // Another leader has written meanwhile.
        let mut theirs = object("a", "default");
        theirs.metadata.resource_version = Some("12".to_owned());
        queue.seen(0, theirs, now);
        queue.listed(0, &BTreeSet::from([job.key()]));
        let job = queue.start(Term::FIRST.next(), now).unwrap();
        assert_eq!(job.object.status, None);
        assert_eq!(job.term, Term::FIRST.next());
    }

    #[test]
    fn edit_during_a_reconcile_is_reconciled_at_once() {
        let now = Instant::now();
        let mut queue = Queue::new(0);
        queue.seen(0, object("a", "default"), now);
        let job = queue.start(Term::FIRST, now).unwrap();
        let mut asked = object("a", "default");
        asked.annotations_mut().insert("asked".into(), "now".into());
        queue.seen(0, asked, now);
        finish(&mut queue, &job, "17", now);
        assert_eq!(queue.wake_at(), Some(now));
        let job = queue.start(Term::FIRST, now).unwrap();
        finish(&mut queue, &job, "17", now);
        assert_eq!(queue.wake_at(), Some(now + Duration::from_mins(10)));
    }
}
