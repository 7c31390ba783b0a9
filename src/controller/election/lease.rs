//! Leader election by a `coordination.k8s.io` Lease.
//!
//! The rules are client-go's (k8s.io/client-go/tools/leaderelection): a holder renews the Lease; a
//! candidate that has seen it unchanged for its whole duration may take it, by a write that fails
//! if another candidate wrote in between. No clock is compared with another machine's.
//! [`candidate`] decides, without I/O; this module has the requests, each bounded in time, and the
//! loop.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    candidate::{Candidate, Move},
    timings::Timings,
};
use crate::tailnet::Term;

/// Why the lease could not be read or written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    /// The API server refuses, or cannot be reached.
    #[error("{0}")]
    Api(#[source] kube::Error),
    /// A request took too long.
    #[error("the API server did not answer within {0:?}")]
    NoAnswer(Duration),
    /// All requests of an attempt together took too long.
    #[error("the API server did not answer before the lease had to be renewed")]
    TooLate,
}

/// The leadership, as it was last won or renewed.
#[derive(Debug, Clone, Copy)]
struct Lead {
    term: Term,
    /// The hold on the lease that it rests on.
    hold: u64,
    /// When it ends unless it is renewed.
    until: Instant,
}

impl Lead {
    /// By the clock, so that a process that was stopped for a while does not write on.
    fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Whether this process may write, and in which term.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<Lead>>);

impl Leadership {
    /// The term in which this process leads now, if it does.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.0.borrow().filter(Lead::holds).map(|lead| lead.term)
    }

    /// Must be checked before each write: true only in the present term, and while no other process
    /// can have taken the lease. Once false for a term, it stays false.
    #[must_use]
    pub fn leads(&self, term: Term) -> bool {
        self.term() == Some(term)
    }

    /// Waits until the term differs from `known`, and returns it. Leadership that is lost and won
    /// again in between is another term, so that no loss is missed.
    pub async fn next(&mut self, known: Option<Term>) -> Option<Term> {
        loop {
            let lead = self.0.borrow_and_update().filter(Lead::holds);
            let term = lead.map(|lead| lead.term);
            if term != known {
                return term;
            }
            match lead {
                Some(lead) => tokio::select! {
                    // An election that was cut off says nothing more; its lease runs out.
                    () = sleep_until(lead.until) => {}
                    Ok(()) = self.0.changed() => {}
                },
                // The election has ended, so there will be no other term.
                None if self.0.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }
}

/// One candidate's part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    timings: Timings,
    candidate: Candidate,
    leadership: watch::Sender<Option<Lead>>,
    next_term: Term,
    failing: bool,
    tried: Listener,
}

/// Receives the outcome of each attempt to use the lease.
type Listener = Box<dyn Fn(Result<(), &str>) + Send + Sync>;

impl Election {
    /// A candidate for the Lease `namespace/name`, and whether it leads.
    ///
    /// `identity` must be this process's alone: two of one identity would both lead.
    /// Needs the verbs get, create and update on the Lease.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timings: Timings,
    ) -> (Leadership, Self) {
        let (sender, receiver) = watch::channel(None);
        let election = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            timings,
            candidate: Candidate::new(name, identity, timings),
            leadership: sender,
            next_term: Term::FIRST,
            failing: false,
            tried: Box::new(|_| ()),
        };
        (Leadership(receiver), election)
    }

    /// Reports each attempt to use the lease, with the error if it failed.
    #[must_use]
    pub fn telling(self, tried: impl Fn(Result<(), &str>) + Send + Sync + 'static) -> Self {
        let tried = Box::new(tried);
        Self { tried, ..self }
    }

    /// Stands for election until `shutdown`, then releases the lease. Cancel `shutdown` after the last
    /// write has ended, as the next leader may start at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            if shutdown.run_until_cancelled(self.attempt()).await.is_none() {
                break;
            }
            self.publish();
            let leads_until = self.candidate.leads_until(Instant::now());
            let retry = Instant::now() + self.timings.retry();
            // At the end of the leadership at the latest, so that readers learn of it then.
            let next = leads_until.map_or(retry, |until| until.min(retry));
            if shutdown
                .run_until_cancelled(sleep_until(next))
                .await
                .is_none()
            {
                break;
            }
            // The next attempt may take long: readers must not wait for it to learn that the leadership is lost.
            self.publish();
        }
        // Before the release: another candidate may lead as soon as the lease is free.
        self.candidate.resign();
        self.publish();
        self.release().await;
    }

    /// Reads the lease, and writes it if it is ours to renew or free to take.
    async fn attempt(&mut self) {
        let holder = self.candidate.holder().map(str::to_owned);
        let result = match self.candidate.leads_until(Instant::now()) {
            // An answer that comes later would come too late.
            Some(until) => timeout_at(until, self.read_and_write())
                .await
                .unwrap_or_else(|_| Err(LeaseError::TooLate)),
            None => self.read_and_write().await,
        };
        let result = result.map_err(|error| error.to_string());
        (self.tried)(result.as_ref().copied().map_err(String::as_str));
        match result {
            Ok(()) => self.failing = false,
            // One warning for each outage: the next attempt is two seconds away.
            Err(error) if self.failing => {
                debug!(lease = self.name, error, "election: failed again");
            }
            Err(error) => {
                self.failing = true;
                warn!(
                    lease = self.name,
                    error, "election: cannot use the lease; retrying"
                );
            }
        }
        let now = self.candidate.holder();
        if now != holder.as_deref() {
            info!(
                lease = self.name,
                holder = now.unwrap_or("nobody"),
                "election: the holder changed"
            );
        }
    }

    async fn read_and_write(&mut self) -> Result<(), LeaseError> {
        let seen = self.bounded(self.api.get_opt(&self.name)).await?.flatten();
        self.candidate.saw(seen, Instant::now());
        // The time before the write counts: the server may apply it long before its response arrives.
        let sent = Instant::now();
        let parameters = PostParams::default();
        let written = match self.candidate.next_move(sent, Timestamp::now()) {
            Move::Wait => None,
            Move::Create(lease) => self.bounded(self.api.create(&parameters, &lease)).await?,
            Move::Replace(lease) => {
                self.bounded(self.api.replace(&self.name, &parameters, &lease))
                    .await?
            }
        };
        if let Some(lease) = written {
            self.candidate.wrote(lease, sent);
        }
        Ok(())
    }

    /// Releases the lease, so that another candidate need not wait; if that fails, the lease
    /// expires.
    async fn release(&mut self) {
        let released = async {
            let seen = self.bounded(self.api.get_opt(&self.name)).await?.flatten();
            // The lease can be replaced only over its present version.
            self.candidate.saw(seen, Instant::now());
            let Some(lease) = self.candidate.release(Timestamp::now()) else {
                return Ok(());
            };
            self.bounded(self.api.replace(&self.name, &PostParams::default(), &lease))
                .await?;
            info!(lease = self.name, "election: released the lease");
            Ok::<_, LeaseError>(())
        };
        if let Err(error) = released.await {
            warn!(
                lease = self.name,
                %error, "election: could not release the lease; it expires"
            );
        }
    }

    /// The response; none if another process wrote first. kube retries some failed requests by
    /// itself, with growing pauses: hence the limit.
    async fn bounded<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>, LeaseError> {
        // Half of it, so that the read and the write of an attempt both fit.
        let limit = self.timings.renew_deadline() / 2;
        match timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            // Both an outdated version and a Lease that another candidate has just created answer
            // 409.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(LeaseError::Api(error)),
            Err(_) => Err(LeaseError::NoAnswer(limit)),
        }
    }

    /// Readers are woken when a term starts or ends, not at each renewal.
    fn publish(&mut self) {
        let lead = self.candidate.lead();
        let next_term = &mut self.next_term;
        let name = &self.name;
        self.leadership.send_if_modified(|current| {
            // By the clock under this lock: a term that any reader has seen run out does not go on.
            let now = Instant::now();
            let before = current.take();
            let Some((hold, until)) = lead.filter(|(_, until)| now < *until) else {
                if before.is_some() {
                    info!(lease = name, leads = false, "election: leadership lost");
                }
                return before.is_some();
            };
            let same = before.filter(|lead| lead.hold == hold && now < lead.until);
            let term = same.map_or(*next_term, |lead| lead.term);
            *current = Some(Lead { term, hold, until });
            if same.is_none() {
                *next_term = term.next();
                info!(lease = name, leads = true, %term, "election: leadership won");
            }
            same.is_none()
        });
    }
}

#[cfg(test)]
mod tests;
