//! `TailscaleDeviceInvite`: opt-in, by `--invites`.
//!
//! ```text
//! invites ─► watch ─► queue ─► reconcile ─► Secret, status, Events
//!                                 │
//!                    engine of the tailnet: which device, and the client
//! ```
//!
//! An invite is no state to converge to: it is made at most once, and looked at now and then until
//! someone has accepted it. So it stays out of the engine, and shares only its snapshot and its
//! client with it, and so the request budget.

mod context;
mod job;
mod next;
mod queue;
mod reconcile;
mod secret;
mod status;

use std::sync::Arc;

use kube::{Api, ResourceExt as _, runtime::watcher};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span, warn};

use crate::{
    api::{DeserializeGuard, TailscaleDeviceInvite},
    controller::{
        election::Leadership,
        watch::stream::{self, Change},
    },
    tailnet::Term,
};
use job::{Done, Job, Key};
use queue::Queue;

pub(super) use context::Context;

/// A change, the watch that it comes from, and the round of that watch.
type InviteEvent = (u64, usize, Change<TailscaleDeviceInvite>);

/// A watch to run: its name, and of what it is.
type Watched = (String, Api<DeserializeGuard<TailscaleDeviceInvite>>);

/// Reconciles the invites of these watches until `stop` is cancelled and the work in flight has
/// ended.
pub(super) async fn run(context: Context, watched: Vec<Watched>, stop: CancellationToken) {
    let (tell, news) = mpsc::unbounded_channel();
    let mut invites = Invites {
        leadership: context.leadership.clone(),
        context: Arc::new(context),
        term: None,
        queue: Queue::new(watched.len()),
        watched,
        tell,
        round: 0,
        watches: JoinSet::new(),
        work: JoinSet::new(),
    };
    invites.watch();
    invites.run(news, stop).await;
}

struct Invites {
    context: Arc<Context>,
    leadership: Leadership,
    term: Option<Term>,
    queue: Queue,
    watched: Vec<Watched>,
    tell: mpsc::UnboundedSender<InviteEvent>,
    round: u64,
    watches: JoinSet<()>,
    work: JoinSet<(Key, Done)>,
}

impl Invites {
    async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<InviteEvent>,
        stop: CancellationToken,
    ) {
        loop {
            if let Some(term) = self.term {
                while let Some(job) = self.queue.start(term, Instant::now()) {
                    self.start(job);
                }
            }
            // Without a term nothing starts, so a due object would wake this loop again and again.
            let wake = self.queue.wake_at().filter(|_| self.term.is_some());
            tokio::select! {
                () = stop.cancelled() => break,
                term = self.leadership.next(self.term) => self.take_term(term),
                Some((round, source, change)) = news.recv() => {
                    // A watch of an earlier round may have queued events before it was aborted.
                    if round == self.round {
                        self.changed(source, change);
                    }
                }
                Some(done) = self.work.join_next() => {
                    if let Ok((key, done)) = done {
                        self.queue.finished(&key, done, Instant::now());
                    }
                }
                () = at(wake) => {}
            }
        }
        // The response to a creation in flight has the id that the status must record.
        while self.work.join_next().await.is_some() {}
    }

    /// Nothing of an earlier term continues, and a new one starts from what is stored after it was
    /// won.
    fn take_term(&mut self, term: Option<Term>) {
        self.term = term;
        // Aborts the work. If an invite was created meanwhile, the next term finds and adopts it.
        self.work = JoinSet::new();
        self.queue.start_term(self.watched.len(), Instant::now());
        if term.is_some() {
            self.watch();
        }
    }

    /// Starts all watches, with a list of everything.
    fn watch(&mut self) {
        self.round += 1;
        self.watches = JoinSet::new();
        for (source, (name, api)) in self.watched.iter().enumerate() {
            let (api, tell, round) = (api.clone(), self.tell.clone(), self.round);
            let health = self.context.readiness.watch(name.clone());
            let tell = move |change| tell.send((round, source, change)).is_ok();
            let which = watcher::Config::default();
            self.watches.spawn(stream::run(api, which, health, tell));
        }
    }

    fn changed(&mut self, source: usize, change: Change<TailscaleDeviceInvite>) {
        match change {
            Change::Applied(object) => match object.0 {
                Ok(invite) if invite.metadata.deletion_timestamp.is_none() => {
                    self.queue.seen(source, invite, Instant::now());
                }
                Ok(invite) => {
                    let key = (invite.namespace().unwrap_or_default(), invite.name_any());
                    self.queue.gone(&key);
                }
                Err(invalid) => {
                    // An earlier version that could be parsed stays in the queue.
                    let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
                    warn!(
                        ?namespace,
                        ?name,
                        "the TailscaleDeviceInvite cannot be parsed: {}",
                        invalid.error
                    );
                }
            },
            Change::Deleted(key) => self.queue.gone(&key),
            Change::Listed(names) => self.queue.listed(source, &names),
        }
    }

    fn start(&mut self, job: Job) {
        let key = job.key();
        let span = info_span!("invite", invite = %format!("{}/{}", key.0, key.1));
        let context = Arc::clone(&self.context);
        let work = async move { (key, reconcile::reconcile(&context, job).await) };
        self.work.spawn(work.instrument(span));
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
