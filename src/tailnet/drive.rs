//! The engine's connection to the world: a client, a clock, and a place for reports.

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use super::{
    Announcement, Answer, Effect, Engine, Failure, Finding, Input, Inquiry, Now, PolicyReport,
    Request, TailnetReport, Ticket, exchange,
    report_queue::{Reports, Written},
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

impl<R: Reporter> Driver<R> {
    async fn run(
        &mut self,
        mut mailbox: mpsc::UnboundedReceiver<Message>,
        stop: CancellationToken,
    ) {
        let mut stopping = false;
        loop {
            self.reports.write(&self.reporter);
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
                Some(written) = self.reports.join_next() => self.written(written),
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
                Effect::Report(key, report) => self.reports.put_policy(key, *report),
                Effect::Tailnet(report) => self.reports.put_tailnet(report),
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

    fn written(&mut self, written: Written) {
        if let Some((key, report)) = self.reports.finish(written) {
            let PolicyReport { uid, memory, .. } = report;
            self.step(Input::Recorded { key, uid, memory });
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
