//! Sends requests: waits for the turn of the next one, and keeps the permits of the writes.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tracing::{Instrument as _, info_span};

use super::{
    Request, Ticket,
    exchange::{self, Outcome},
};
use crate::tailscale::{Client, Haste, Permit, Turn};

/// The progress of requests.
pub(super) enum Progress {
    /// A request can be sent now.
    Turn(Turn),
    /// A request has ended.
    Outcome(Ticket, Outcome),
}

/// Whether writes may be sent at this moment; checked right before each.
pub(super) type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// The pause before a write is decided again that was not sent because this process may not write: the engine
/// is about to learn that.
const PAUSE: Duration = Duration::from_millis(100);

type Waiting = Pin<Box<dyn Future<Output = Option<Turn>> + Send>>;

/// Sends the requests of an engine with one client at a time.
pub(super) struct Requests {
    client: Option<Client>,
    /// The turn that the next request waits for.
    waiting: Option<Waiting>,
    haste: Haste,
    turn: Option<Turn>,
    permits: BTreeMap<Ticket, Permit>,
    tasks: JoinSet<(Ticket, Outcome)>,
}

impl Requests {
    pub fn new() -> Self {
        Self {
            client: None,
            waiting: None,
            haste: Haste::Routine,
            turn: None,
            permits: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Takes another client. Requests that wait in the previous one are no longer sent, no matter who sent
    /// them there.
    pub fn connect(&mut self, client: Option<Client>) {
        self.waiting = None;
        // Writes that wait were decided for the previous connection.
        self.revoke(|_| false);
        let before = std::mem::replace(&mut self.client, client);
        if let Some(before) = before {
            // A clone shares the connection, which must stay open.
            let stays = self.client.as_ref();
            if stays.is_none_or(|client| !client.is_clone_of(&before)) {
                before.close();
            }
        }
    }

    /// Waits for a turn while one is needed, in this haste.
    pub fn want_turn(&mut self, needed: Option<Haste>) {
        let Some(haste) = needed else {
            self.waiting = None;
            return;
        };
        let waits = self.waiting.is_some() && self.haste == haste;
        if let Some(client) = self.client.clone().filter(|_| !waits) {
            self.haste = haste;
            self.waiting = Some(Box::pin(async move { client.turn(haste).await }));
        }
    }

    /// The next turn or outcome. Waits forever if there is neither.
    pub async fn next(&mut self) -> Progress {
        loop {
            let waiting = &mut self.waiting;
            let turn = async {
                match waiting {
                    Some(waiting) => waiting.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                turn = turn => {
                    self.waiting = None;
                    // A closed client gives no turn; another client is about to replace it.
                    if let Some(turn) = turn {
                        return Progress::Turn(turn);
                    }
                }
                // Nothing cancels a task, and a panic ends the process.
                Some(done) = self.tasks.join_next() => if let Ok((ticket, outcome)) = done {
                    self.permits.remove(&ticket);
                    return Progress::Outcome(ticket, outcome);
                },
            }
        }
    }

    /// Takes the turn for the request that is sent next.
    pub fn begin_turn(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// Returns an unused turn to the budget.
    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// Sends a request with the current turn. A write is sent only while `may_write` is true, and not after
    /// `until`.
    pub fn send(
        &mut self,
        ticket: Ticket,
        request: Request,
        until: Option<Instant>,
        may_write: MayWrite,
    ) {
        let span = info_span!("request", ticket = ticket.0, request = request.name());
        let (Some(client), Some(turn)) = (&self.client, self.turn.take()) else {
            self.tasks.spawn(async move { (ticket, Outcome::NotSent) });
            return;
        };
        let mut client = client.with_turn(turn);
        let allowed = Arc::clone(&may_write);
        let is_write = matches!(request, Request::Write(_));
        if is_write {
            // What the write rests on may be too old once the connection is there (docs/decisions/0008).
            let permit = Permit::new(move || {
                may_write() && until.is_none_or(|until| Instant::now() < until)
            });
            self.permits.insert(ticket, permit.clone());
            client = client.permitted(permit);
        }
        let exchange = async move {
            let outcome = exchange::send(&client, &request).await;
            if is_write && matches!(outcome, Outcome::NotSent) && !allowed() {
                tokio::time::sleep(PAUSE).await;
            }
            (ticket, outcome)
        };
        self.tasks.spawn(exchange.instrument(span));
    }

    /// Revokes the writes that are not sent yet and no longer needed.
    pub fn revoke(&mut self, still_needed: impl Fn(Ticket) -> bool) {
        // A request that is on its way can no longer be revoked.
        self.permits.retain(|_, permit| permit.is_waiting());
        for (ticket, permit) in &self.permits {
            if !still_needed(*ticket) {
                permit.revoke();
            }
        }
    }
}
