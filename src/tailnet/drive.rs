//! The engine's connection to the world: a client, a clock, and a place for reports.

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Announcement, Effect, Engine, Failure, Finding, Input, Inquiry, Now, PolicyReport, Settings,
    TailnetReport, exchange,
    report_queue::{Reports, Written},
    requests::{Outcome, Progress, Requests},
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
    /// The client to send requests with from now on, or why there is none. With the settings that hold
    /// from the same moment on, where they have changed: what one connection permits is never done by
    /// another.
    Connection {
        /// How the tailnet is looked after from now on; `None`: as before.
        settings: Option<Box<Settings>>,
        /// The client.
        client: Result<Client, Failure>,
    },
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
        started: Instant::now(),
        requests: Requests::new(),
        writable: CancellationToken::new(),
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
    started: Instant,
    requests: Requests,
    /// Cancelled when the tailnet can no longer be written to as it was up to now.
    writable: CancellationToken,
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
                    Some(message) => self.take(message),
                    // Whoever told us what to do is gone.
                    None => stop.cancel(),
                },
                progress = self.requests.next() => match progress {
                    Progress::Turn(turn) => {
                        // What is known by now decides what is sent.
                        for _ in 0..mailbox.len() {
                            if let Ok(message) = mailbox.try_recv() {
                                self.take(message);
                            }
                        }
                        self.requests.begin_turn(turn);
                        self.step(Input::Turn);
                        self.requests.end_turn();
                    }
                    Progress::Outcome(ticket, Outcome::Answered(result)) => {
                        self.step(Input::Answered(ticket, result));
                    }
                    Progress::Outcome(ticket, Outcome::NotSent) => {
                        self.step(Input::NotSent(ticket));
                    }
                },
                Some(written) = self.reports.join_next() => self.written(written),
                () = sleep_until(wake) => self.step(Input::Wake),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.step(input),
            Message::Connection { settings, client } => {
                let (client, connected) = match client {
                    Ok(client) => (Some(client), Ok(())),
                    Err(failure) => (None, Err(failure)),
                };
                self.requests.connect(client);
                self.end_writes();
                self.step(Input::Connection {
                    settings,
                    connected,
                });
            }
            Message::Inquiry(inquiry) => self.answer(inquiry),
        }
    }

    fn answer(&self, inquiry: Inquiry) {
        let client = self.requests.client();
        let found = self.engine.find(&inquiry.target).and_then(|binding| {
            Ok(Finding {
                binding,
                client: client.cloned().ok_or_else(exchange::disconnected)?,
                settings: self.engine.settings.clone(),
                writable: self.writable.clone(),
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
                Effect::Send {
                    ticket,
                    request,
                    until,
                } => {
                    let reporter = Arc::clone(&self.reporter);
                    let may_write = Arc::new(move || reporter.may_write());
                    let until = until.map(|until| self.started + until);
                    self.requests.send(ticket, request, until, may_write);
                }
                Effect::Report(key, report) => self.reports.put_policy(key, *report),
                Effect::Tailnet(report) => self.reports.put_tailnet(report),
                Effect::Announce(key, announcement) => {
                    // The other end goes only after this driver.
                    let _ = self.announcements.send((key, *announcement));
                }
            }
        }
        let engine = &self.engine;
        if !engine.is_writable() {
            self.end_writes();
        }
        let engine = &self.engine;
        self.requests
            .revoke(|ticket| engine.still_wants(ticket, now));
        self.requests.want_turn(engine.wants_turn());
    }

    /// Nobody who works beside the engine writes any longer by what they were told up to now.
    fn end_writes(&mut self) {
        std::mem::take(&mut self.writable).cancel();
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
