//! The engine's connection to the world: a client, a clock, and a place for reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::{
    Announcement, Answer, Effect, Engine, Failure, Finding, Input, Inquiry, Now, PolicyReport,
    Request, TailnetReport, Ticket, exchange,
};
use crate::{plan::PolicyKey, tailscale::Client};

/// Where reports are kept: the status of objects, or a terminal.
pub trait Reporter: Send + Sync + 'static {
    /// Whether a change may be sent at this moment. The engine hears of a lost lead by a message;
    /// a process that was stopped for a while must not send before that message comes.
    fn may_write(&self) -> bool {
        true
    }
    /// Keeps the report of a policy; `false` where that did not succeed and is to be tried again.
    fn policy(&self, key: &PolicyKey, report: &PolicyReport) -> impl Future<Output = bool> + Send;
    /// Keeps the report of the tailnet; `false` as above.
    fn tailnet(&self, report: &TailnetReport) -> impl Future<Output = bool> + Send;
    /// Tells people. Not tried again: the status says the same.
    fn announce(
        &self,
        key: &PolicyKey,
        announcement: &Announcement,
    ) -> impl Future<Output = ()> + Send;
}

/// What a driver is told.
#[derive(Debug)]
pub enum Message {
    /// Something for the engine.
    Input(Input),
    /// The client to send requests with from now on, or why there is none.
    Client(Result<Client, Failure>),
    /// Somebody works beside the engine.
    Inquiry(Inquiry),
}

/// Reports that are being kept at once.
const WRITERS: usize = 8;
/// Before a report is tried again that could not be kept.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// Drives an engine until `stop` is cancelled or it is finished, the requests under way have ended and
/// the reports are kept. Gives it back for a last look.
///
/// The mailbox is unbounded as the engine takes a message at once, whatever the API does; one slow
/// tailnet so never holds up those who write to several.
pub async fn drive<R: Reporter>(
    engine: Engine,
    mailbox: mpsc::UnboundedReceiver<Message>,
    reporter: Arc<R>,
    stop: CancellationToken,
) -> Engine {
    let (announcements, mut said) = mpsc::unbounded_channel::<(PolicyKey, Announcement)>();
    let speaker = Arc::clone(&reporter);
    // One after the other, as they happened.
    let told = tokio::spawn(async move {
        while let Some((key, announcement)) = said.recv().await {
            speaker.announce(&key, &announcement).await;
        }
    });
    let mut driver = Driver {
        engine,
        reporter,
        client: None,
        started: Instant::now(),
        requests: JoinSet::new(),
        reports: Reports::default(),
        announcements,
    };
    driver.run(mailbox, stop).await;
    let Driver {
        engine,
        announcements,
        ..
    } = driver;
    drop(announcements);
    // What was said last is still on its way.
    let _ = told.await;
    engine
}

struct Driver<R> {
    engine: Engine,
    reporter: Arc<R>,
    client: Option<Client>,
    started: Instant,
    requests: JoinSet<(Ticket, Result<Answer, Failure>)>,
    reports: Reports,
    announcements: mpsc::UnboundedSender<(PolicyKey, Announcement)>,
}

/// Reports to keep: of each policy at most the newest, and only one at a time.
#[derive(Default)]
struct Reports {
    waiting: BTreeMap<PolicyKey, PolicyReport>,
    tailnet: Option<TailnetReport>,
    busy: BTreeSet<PolicyKey>,
    tailnet_busy: bool,
    writers: JoinSet<Written>,
}

enum Written {
    Policy(PolicyKey, Box<PolicyReport>, bool),
    Tailnet(Box<TailnetReport>, bool),
}

impl<R: Reporter> Driver<R> {
    async fn run(
        &mut self,
        mut mailbox: mpsc::UnboundedReceiver<Message>,
        stop: CancellationToken,
    ) {
        let mut stopping = false;
        loop {
            self.write_reports();
            let ends = if stopping {
                self.engine.is_idle()
            } else {
                self.engine.is_finished()
            };
            if ends && self.reports.are_kept() {
                break;
            }
            let wake = self.engine.wake_at().map(|at| self.started + at);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.step(Input::Stop);
                }
                message = mailbox.recv() => match message {
                    Some(Message::Input(input)) => self.step(input),
                    Some(Message::Client(client)) => self.connect(client),
                    Some(Message::Inquiry(inquiry)) => self.answer(inquiry),
                    // Whoever told us what to do is gone.
                    None => stop.cancel(),
                },
                Some(answer) = self.requests.join_next() => {
                    if let Ok((ticket, result)) = answer {
                        self.step(Input::Answered(ticket, result));
                    }
                }
                Some(written) = self.reports.writers.join_next() => {
                    if let Ok(written) = written {
                        self.written(written);
                    }
                }
                () = sleep_until(wake) => self.step(Input::Wake),
            }
        }
    }

    fn connect(&mut self, client: Result<Client, Failure>) {
        let connection = match client {
            Ok(client) => {
                self.client = Some(client);
                Ok(())
            }
            Err(failure) => {
                self.client = None;
                Err(failure)
            }
        };
        self.step(Input::Connection(connection));
    }

    fn answer(&self, inquiry: Inquiry) {
        let found = self.engine.find(&inquiry.target).and_then(|binding| {
            Ok(Finding {
                binding,
                client: self.client.clone().ok_or_else(exchange::disconnected)?,
                settings: self.engine.settings.clone(),
            })
        });
        // Who asked may have gone meanwhile.
        let _ = inquiry.reply.send(found);
    }

    fn step(&mut self, input: Input) {
        let now = Now {
            monotonic: self.started.elapsed(),
            wall: Timestamp::now(),
        };
        for effect in self.engine.step(input, now) {
            match effect {
                Effect::Send(ticket, request) => self.send(ticket, request),
                Effect::Report(key, report) => {
                    self.reports.waiting.insert(key, *report);
                }
                Effect::Tailnet(report) => self.reports.tailnet = Some(report),
                Effect::Announce(key, announcement) => {
                    // The other end goes only after this driver.
                    let _ = self.announcements.send((key, *announcement));
                }
            }
        }
    }

    fn send(&mut self, ticket: Ticket, request: Request) {
        let is_write = matches!(request, Request::Write(_));
        let client = self
            .client
            .clone()
            .filter(|_| !is_write || self.reporter.may_write());
        let span = info_span!("request", ticket = ticket.0, request = request.name());
        let exchange = async move {
            match client {
                Some(client) => (ticket, exchange::send(&client, &request).await),
                None => (ticket, Err(exchange::disconnected())),
            }
        };
        self.requests.spawn(exchange.instrument(span));
    }

    fn write_reports(&mut self) {
        if !self.reports.tailnet_busy
            && let Some(report) = self.reports.tailnet.take()
        {
            self.reports.tailnet_busy = true;
            let reporter = Arc::clone(&self.reporter);
            self.reports.writers.spawn(async move {
                let kept = reporter.tailnet(&report).await;
                again_later(kept).await;
                Written::Tailnet(Box::new(report), kept)
            });
        }
        while self.reports.busy.len() < WRITERS
            && let Some((key, report)) = self.reports.next()
        {
            self.reports.busy.insert(key.clone());
            let reporter = Arc::clone(&self.reporter);
            let span = info_span!("reconcile", policy = %key, generation = report.generation);
            let write = async move {
                let kept = reporter.policy(&key, &report).await;
                again_later(kept).await;
                Written::Policy(key, Box::new(report), kept)
            };
            self.reports.writers.spawn(write.instrument(span));
        }
    }

    fn written(&mut self, written: Written) {
        match written {
            Written::Tailnet(report, kept) => {
                self.reports.tailnet_busy = false;
                if !kept {
                    self.reports.tailnet.get_or_insert(*report);
                }
            }
            Written::Policy(key, report, kept) => {
                self.reports.busy.remove(&key);
                if kept {
                    let PolicyReport { uid, memory, .. } = *report;
                    self.step(Input::Recorded { key, uid, memory });
                } else {
                    self.reports.waiting.entry(key).or_insert(*report);
                }
            }
        }
    }
}

impl Reports {
    fn next(&mut self) -> Option<(PolicyKey, PolicyReport)> {
        let key = self
            .waiting
            .keys()
            .find(|key| !self.busy.contains(*key))?
            .clone();
        self.waiting.remove_entry(&key)
    }

    fn are_kept(&self) -> bool {
        self.waiting.is_empty()
            && self.tailnet.is_none()
            && self.busy.is_empty()
            && !self.tailnet_busy
    }
}

async fn again_later(kept: bool) {
    if !kept {
        tokio::time::sleep(WRITE_AGAIN).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
