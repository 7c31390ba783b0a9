//! The engine's connection to the world: a client, a clock, and a place for reports.

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    DeviceLookup, Effect, Engine, Failure, Input, LookupResult, Notification, Now, PolicyReport,
    Settings, TailnetReport, Term, exchange,
    inbox::Inbox,
    report_queue::{Reports, Written},
    requests::{Outcome, Progress, Requests},
};
use crate::{plan::PolicyKey, tailscale::Client};

/// Where reports are kept: the status of objects, or a terminal.
pub trait Reporter: Send + Sync + 'static {
    /// Whether this process leads in this term at this moment. Once it does not, it never will again:
    /// the lead is regained in a new term. The engine learns of the end of a term by a message; a
    /// process that was stopped for a while must not write before that message comes.
    fn may_write(&self, _term: Term) -> bool {
        true
    }
    /// Records the report of a policy.
    fn policy(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> impl Future<Output = Recorded> + Send;
    /// Records the report of the tailnet; `false` where that failed and must be tried again.
    fn tailnet(&self, term: Term, report: &TailnetReport) -> impl Future<Output = bool> + Send;
    /// Tells people. Not tried again: the status says the same.
    fn notify(
        &self,
        term: Term,
        key: &PolicyKey,
        notification: &Notification,
    ) -> impl Future<Output = ()> + Send;
}

/// What became of the report of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is recorded, and would survive a crash.
    Yes,
    /// The policy is gone, or belongs to another tailnet now: there is nothing to record it on.
    Gone,
    /// It must be tried again.
    No,
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
    DeviceLookup(DeviceLookup),
}

/// Drives an engine until `stop` is cancelled or it is finished, the requests under way have ended and
/// the reports are kept. Gives it back for a last look.
///
/// The mailbox is unbounded, so that one slow tailnet never holds up those who write to several; what waits
/// there is bounded by the number of objects, as of each only the newest state is kept.
pub async fn drive<R: Reporter>(
    engine: Engine,
    mailbox: mpsc::UnboundedReceiver<Message>,
    reporter: Arc<R>,
    stop: CancellationToken,
) -> Engine {
    let (notifications, mut incoming) =
        mpsc::unbounded_channel::<(Term, PolicyKey, Notification)>();
    let speaker = Arc::clone(&reporter);
    // One after the other, as they happened.
    let notifier = tokio::spawn(async move {
        while let Some((term, key, notification)) = incoming.recv().await {
            speaker.notify(term, &key, &notification).await;
        }
    });
    let mut driver = Driver {
        engine,
        reporter,
        term: None,
        started: Instant::now(),
        requests: Requests::new(),
        writable: CancellationToken::new(),
        reports: Reports::default(),
        notifications,
    };
    driver.run(Inbox::new(mailbox), stop).await;
    let Driver {
        engine,
        notifications,
        ..
    } = driver;
    drop(notifications);
    // What was said last is still on its way.
    let _ = notifier.await;
    engine
}

struct Driver<R> {
    engine: Engine,
    reporter: Arc<R>,
    /// The term that the engine knows of.
    term: Option<Term>,
    started: Instant,
    requests: Requests,
    /// Cancelled when the tailnet can no longer be written to as it was up to now.
    writable: CancellationToken,
    reports: Reports,
    notifications: mpsc::UnboundedSender<(Term, PolicyKey, Notification)>,
}

impl<R: Reporter> Driver<R> {
    async fn run(&mut self, mut inbox: Inbox, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            self.write_reports();
            let ends = if stopping {
                self.engine.is_idle()
            } else {
                self.engine.is_finished()
            };
            if ends && self.reports.are_recorded() {
                break;
            }
            let wake = self.engine.wake_at().map(|at| self.started + at);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.step(Input::Stop);
                }
                message = inbox.next() => match message {
                    Some(message) => self.take(message),
                    // Whoever told us what to do is gone.
                    None => stop.cancel(),
                },
                progress = self.requests.next() => match progress {
                    Progress::Turn(turn) => {
                        // What is known by now decides what is sent.
                        for message in inbox.take_all() {
                            self.take(message);
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
                () = sleep_until(wake) => {
                    self.step(Input::Wake);
                    // The next step may be due at once: others work on this thread too.
                    tokio::task::yield_now().await;
                }
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
            Message::DeviceLookup(inquiry) => self.answer(inquiry),
        }
    }

    fn answer(&mut self, inquiry: DeviceLookup) {
        let client = self.requests.client();
        let found = self.engine.find(&inquiry.target, inquiry.bound.as_ref());
        let found = found.and_then(|(binding, doubt)| {
            Ok(LookupResult {
                binding,
                doubt,
                client: client.cloned().ok_or_else(exchange::disconnected)?,
                settings: self.engine.settings.clone(),
                writable: self.writable.clone(),
            })
        });
        // Who asked may have gone meanwhile.
        let _ = inquiry.reply.send(found);
    }

    fn step(&mut self, input: Input) {
        match &input {
            Input::Term(term) if *term != self.term => {
                self.term = *term;
                self.reports.clear();
            }
            Input::PolicyGone(key) => self.reports.forget(key),
            _ => {}
        }
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
                    let (term, reporter) = (self.term, Arc::clone(&self.reporter));
                    let may_write =
                        Arc::new(move || term.is_some_and(|term| reporter.may_write(term)));
                    let until = until.map(|until| self.started + until);
                    self.requests.send(ticket, request, until, may_write);
                }
                Effect::Report(key, report) => self.reports.put_policy(key, *report),
                Effect::Tailnet(report) => self.reports.put_tailnet(*report),
                Effect::Notify(key, notification) => {
                    // The other end goes only after this driver.
                    if let Some(term) = self.term {
                        let _ = self.notifications.send((term, key, *notification));
                    }
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

    /// What is still unwritten when its term is over is never written, even if the message of its end
    /// does not come, as while this process stops.
    fn write_reports(&mut self) {
        match self.term.filter(|term| self.reporter.may_write(*term)) {
            Some(term) => self.reports.write(term, &self.reporter),
            None => self.reports.clear(),
        }
    }

    fn written(&mut self, written: Written) {
        if let Some(recorded) = self.reports.finish(written) {
            self.step(recorded);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
