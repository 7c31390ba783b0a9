//! Connects the engine to a client, a clock, and a reporter.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Backlog, DeviceLookup, Effect, Engine, Input, LookupResult, Message, Notification, Now,
    Reporter, Term,
    exchange::{self, Outcome},
    inbox::Inbox,
    report_queue::{Reports, Written},
    requests::{Progress, Requests},
};
use crate::plan::PolicyKey;

/// Drives an engine until `stop` is cancelled or the engine is finished, all requests have ended and all
/// reports are recorded. Returns the engine.
///
/// The mailbox is unbounded, so that one slow tailnet never blocks a sender that serves several. The number
/// of objects bounds it, as only the newest state of each object is kept.
pub async fn drive<R: Reporter>(
    engine: Engine,
    mailbox: mpsc::UnboundedReceiver<Message>,
    reporter: Arc<R>,
    stop: CancellationToken,
) -> Engine {
    let (notifications, mut incoming) =
        mpsc::unbounded_channel::<(Term, PolicyKey, Notification)>();
    let notifier = Arc::clone(&reporter);
    // One after the other, in the order in which they happened.
    let notifications_task = tokio::spawn(async move {
        while let Some((term, key, notification)) = incoming.recv().await {
            notifier.notify(term, &key, &notification).await;
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
    // The last notifications are still on their way.
    let _ = notifications_task.await;
    engine
}

struct Driver<R> {
    engine: Engine,
    reporter: Arc<R>,
    /// The term that the engine knows.
    term: Option<Term>,
    started: Instant,
    requests: Requests,
    /// Cancelled when the connection, the lead or the suspension of the tailnet changes: see
    /// [`LookupResult::writable`].
    writable: CancellationToken,
    reports: Reports,
    notifications: mpsc::UnboundedSender<(Term, PolicyKey, Notification)>,
}

impl<R: Reporter> Driver<R> {
    async fn run(&mut self, mut inbox: Inbox, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            self.write_reports();
            self.reporter.waits(self.backlog());
            let ends = if stopping {
                self.engine.is_idle()
            } else {
                self.engine.is_finished()
            };
            // Not before the reports are written: they contain the outcome of the last requests.
            if ends && self.reports.are_recorded() {
                break;
            }
            // Again after each step, as each may have made something due.
            let wake = self.engine.wake_at().map(|at| self.started + at);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.step(Input::Stop);
                }
                message = inbox.next() => match message {
                    Some(message) => self.take(message),
                    // All senders are gone.
                    None => stop.cancel(),
                },
                progress = self.requests.next() => match progress {
                    Progress::Turn(turn) => {
                        // The newest state decides which request is sent.
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
                    // The next step may be due at once. Other tasks run on this thread too.
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
                // Before the step, so that the engine finds no request of the previous connection waiting.
                self.requests.connect(client);
                self.end_writes();
                self.step(Input::Connection {
                    settings,
                    connected,
                });
            }
            Message::DeviceLookup(lookup) => self.answer(lookup),
        }
    }

    fn answer(&mut self, lookup: DeviceLookup) {
        let client = self.requests.client();
        let found = self
            .engine
            .find(&lookup.target, lookup.bound.as_ref())
            .and_then(|(binding, doubt)| {
                Ok(LookupResult {
                    binding,
                    doubt,
                    client: client.cloned().ok_or_else(exchange::disconnected)?,
                    settings: self.engine.settings().clone(),
                    writable: self.writable.clone(),
                })
            });
        // The caller may have gone meanwhile.
        let _ = lookup.reply.send(found);
    }

    fn step(&mut self, input: Input) {
        match &input {
            // Before the step: a report of an earlier term must not be written in this one.
            Input::Term(term) if *term != self.term => {
                self.term = *term;
                self.reports.clear();
            }
            // Its status is gone too, so the report could only fail.
            Input::PolicyGone(key) => self.reports.forget(key),
            _ => {}
        }
        let now = Now {
            monotonic: self.started.elapsed(),
            wall: Timestamp::now(),
        };
        let began = Instant::now();
        let effects = self.engine.step(input, now);
        self.reporter.stepped(began.elapsed());
        for effect in effects {
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
                    // The receiver ends only after this driver.
                    if let Some(term) = self.term {
                        let _ = self.notifications.send((term, key, *notification));
                    }
                }
            }
        }
        if !self.engine.is_writable() {
            self.end_writes();
        }
        let engine = &self.engine;
        self.requests
            .revoke(|ticket| engine.still_wants(ticket, now));
        self.requests.want_turn(engine.wants_turn());
    }

    fn backlog(&self) -> Backlog {
        let (devices, selectors) = self.engine.backlog();
        Backlog {
            devices,
            requests: self.requests.in_flight(),
            selectors,
            statuses: self.reports.waiting(),
        }
    }

    /// Other controllers must not write any longer based on the lookups so far.
    fn end_writes(&mut self) {
        std::mem::take(&mut self.writable).cancel();
    }

    /// A report that is not written when its term ends is never written, even if the message about the end
    /// does not arrive, for example while this process stops.
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
