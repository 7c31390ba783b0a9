//! The engines of all tailnets.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::handle::TailnetHandle;
use crate::{
    controller::{
        connect::settings::unconnected,
        write::{objects::Objects, status_writer::StatusWriter},
    },
    tailnet::{Engine, Input, Message, Term, drive},
};

/// One engine for each tailnet that a resource or a policy names.
pub(super) struct Engines {
    handles: BTreeMap<String, TailnetHandle>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    objects: Arc<Objects>,
}

impl Engines {
    pub fn new(objects: Arc<Objects>) -> Self {
        Self {
            handles: BTreeMap::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            objects,
        }
    }

    /// The tailnets that have an engine.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.handles.keys()
    }

    /// The engine of a tailnet; it is started if it is new, with these messages.
    pub fn get_or_start(
        &mut self,
        name: &str,
        first: impl FnOnce() -> Vec<Message>,
    ) -> &mut TailnetHandle {
        match self.handles.entry(name.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let (mailbox, received) = mpsc::unbounded_channel();
                let handle = TailnetHandle::new(mailbox);
                // In the mailbox before the engine starts, so that it handles nothing else first.
                for message in first() {
                    handle.send(message);
                }
                let writer = StatusWriter::new(name, Arc::clone(&self.objects));
                // The seed spreads polls and retries, so that tailnets do not act in step.
                let engine = Engine::new(unconnected(), fastrand::u64(..));
                let driven = drive(engine, received, Arc::new(writer), self.stop.clone())
                    .instrument(info_span!("tailnet", tailnet = name));
                self.tasks.spawn(async move {
                    driven.await;
                });
                new.insert(handle)
            }
        }
    }

    pub fn send_to_all(&self, input: impl Fn() -> Input) {
        for handle in self.handles.values() {
            handle.send(Message::Input(input()));
        }
    }

    /// Ends the present term.
    pub fn end_term(&mut self) {
        for handle in self.handles.values_mut() {
            handle.end_term();
        }
    }

    /// Requests a read of every credential in this round of the watches.
    pub fn reread(&self, round: u64) {
        for handle in self.handles.values() {
            handle.reread(round);
        }
    }

    /// Starts a term for those that are ready for it.
    pub fn start_term(&mut self, term: Term, round: u64) {
        for handle in self.handles.values_mut() {
            handle.start_term(term, round);
        }
    }

    /// Tells all to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until each has finished its requests in flight.
    pub async fn drained(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
