//! `TailscaleDeviceInvite`: opt-in, by `--invites`.
//!
//! ```text
//! invites ─► watch ─► queue ─► reconcile ─► Secret, status, Events
//!                                 │
//!                    engine of the tailnet: which device, and the client
//! ```
//!
//! An invite is no state to converge to: it is made at most once, and looked at now and then until
//! somebody has accepted it. So it stays out of the engine, and shares only its snapshot and its
//! client with it, and so the request budget.

mod next;
mod queue;
mod reconcile;
mod secret;
mod status;

use std::sync::Arc;

use kube::{Api, ResourceExt as _};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span, warn};

use super::{
    lease::Leadership,
    liveness::Liveness,
    metrics::Metrics,
    router,
    watch::{self, Change},
};
use crate::api::{DeserializeGuard, TailscaleDeviceInvite};
use queue::{Key, Queue};
use reconcile::{Done, Job};

/// What every reconcile needs.
pub(super) struct Context {
    pub client: kube::Client,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    /// The way to the engines.
    pub router: mpsc::UnboundedSender<router::News>,
}

/// A change, and the watch that it comes from.
type News = (usize, Change<TailscaleDeviceInvite>);

/// Looks after the invites that these watches (with their names) show, until `stop` is cancelled and the work under way
/// has ended.
pub(super) async fn run(
    context: Context,
    watched: Vec<(String, Api<DeserializeGuard<TailscaleDeviceInvite>>)>,
    liveness: Arc<Liveness>,
    stop: CancellationToken,
) {
    let (tell, news) = mpsc::unbounded_channel();
    let sources = watched.len();
    for (source, (name, api)) in watched.into_iter().enumerate() {
        let health = liveness.watch(name);
        let watch = watch::run(api, health, tell.clone(), move |change| (source, change));
        tokio::spawn(stop.clone().run_until_cancelled_owned(watch));
    }
    let invites = Invites {
        leadership: context.leadership.clone(),
        context: Arc::new(context),
        queue: Queue::new(sources),
        work: JoinSet::new(),
    };
    invites.run(news, stop).await;
}

struct Invites {
    context: Arc<Context>,
    leadership: Leadership,
    queue: Queue,
    work: JoinSet<(Key, Done)>,
}

impl Invites {
    async fn run(mut self, mut news: mpsc::UnboundedReceiver<News>, stop: CancellationToken) {
        let mut leads = false;
        loop {
            if leads {
                while let Some(job) = self.queue.start(Instant::now()) {
                    self.start(job);
                }
            }
            let wake = self.queue.wake_at().filter(|_| leads);
            tokio::select! {
                () = stop.cancelled() => break,
                () = turned(&mut self.leadership, leads) => {
                    leads = !leads;
                    self.queue.all_are_due(Instant::now());
                }
                Some((source, change)) = news.recv() => self.changed(source, change, leads),
                Some(done) = self.work.join_next() => {
                    if let Ok((key, done)) = done {
                        self.queue.finished(&key, done, Instant::now());
                    }
                }
                () = at(wake) => {}
            }
        }
        while self.work.join_next().await.is_some() {}
    }

    fn changed(&mut self, source: usize, change: Change<TailscaleDeviceInvite>, leads: bool) {
        match change {
            Change::Applied(object) => match object.0 {
                Ok(invite) if invite.metadata.deletion_timestamp.is_none() => {
                    self.queue.seen(source, invite, leads, Instant::now());
                }
                Ok(invite) => {
                    let key = (invite.namespace().unwrap_or_default(), invite.name_any());
                    self.queue.gone(&key);
                }
                Err(invalid) => {
                    let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
                    warn!(
                        ?namespace,
                        ?name,
                        "this TailscaleDeviceInvite cannot be read: {}",
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

/// Waits until the lead is won or, while it is ours, lost.
async fn turned(leadership: &mut Leadership, leads: bool) {
    if leads {
        leadership.lost().await;
    } else {
        leadership.won().await;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
