//! The engine of a tailnet as the registry sees it, and its connection.

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tracing::{Instrument as _, info_span};

use super::event::ControllerEvent;
use crate::{
    api::TailscaleTailnetSpec,
    controller::connect::{
        budget::{TailnetBudget, request_budget},
        channel::EngineConnection,
        connection::Connector,
        failures::{connecting, invalid_tailnet},
        reread::Reread,
        settings::{self, Endpoint},
    },
    model::Refused,
    tailnet::{Failure, Input, Message, Settings, Term},
    tailscale::Budget,
};

/// The engine of a tailnet, and its connection. Each tailnet that policies refer to has one,
/// whether its resource exists or not, so that the policies report that.
pub(super) struct TailnetHandle {
    mailbox: mpsc::UnboundedSender<Message>,
    /// The term that the engine knows of.
    term: Option<Term>,
    spec: Option<TailscaleTailnetSpec>,
    connection: Option<Connection>,
    /// Counts the connections.
    connections: u64,
    /// The request budget in use; it outlives the connection and the resource.
    budget: Option<TailnetBudget>,
}

/// The task that keeps a tailnet connected.
struct Connection {
    number: u64,
    endpoint: Endpoint,
    line: EngineConnection,
    task: AbortHandle,
    /// Requests a read of the Secret in this round of the watches.
    asked: watch::Sender<u64>,
    /// The last round in which the Secret was read.
    read: Option<u64>,
}

impl TailnetHandle {
    pub fn new(mailbox: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            mailbox,
            term: None,
            spec: None,
            connection: None,
            connections: 0,
            budget: None,
        }
    }

    pub fn send(&self, message: Message) {
        // An engine ends only when the process does: the next start sends every message again.
        let _ = self.mailbox.send(message);
    }

    /// Takes over the used request budget of another connection.
    pub fn inherit(&mut self, budget: TailnetBudget) {
        self.budget = Some(budget);
    }

    /// The term of the engine is over.
    pub fn end_term(&mut self) {
        // A term that has not started here needs no end.
        if self.term.take().is_some() {
            self.send(Message::Input(Input::Term(None)));
        }
    }

    /// Starts a term, unless the connection has not read its credential in this round yet: the
    /// client of an earlier term may have another credential.
    pub fn start_term(&mut self, term: Term, round: u64) {
        let connection = self.connection.as_ref();
        // Without a connection there is no credential to wait for.
        let is_fresh = connection.is_none_or(|connection| connection.read == Some(round));
        if is_fresh && self.term != Some(term) {
            self.term = Some(term);
            self.send(Message::Input(Input::Term(Some(term))));
        }
    }

    /// Requests another read of the credential.
    pub fn reread(&self, round: u64) {
        if let Some(connection) = &self.connection {
            connection.asked.send_replace(round);
        }
    }

    /// The connection of this number has read its credential, and the engine has the result.
    pub fn reread_done(&mut self, number: u64, round: u64) {
        let connection = self.connection.as_mut();
        // A connection that has been replaced may still report.
        if let Some(connection) = connection.filter(|it| it.number == number) {
            connection.read = Some(round);
        }
    }

    /// Ends the connection: nothing of it reaches the engine afterwards.
    pub fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.line.close();
            connection.task.abort();
        }
    }

    /// The resource is gone, or never existed.
    pub fn forget_spec(&mut self) {
        self.spec = None;
        self.disconnect();
    }

    /// Connects a tailnet as its spec describes. New guardrails apply at once. If the API's address
    /// or the credential changes, the previous connection ends at the same moment.
    pub fn connect(
        &mut self,
        name: &str,
        spec: TailscaleTailnetSpec,
        connector: &Connector,
        round: u64,
        events: &mpsc::UnboundedSender<ControllerEvent>,
    ) {
        // An edit of the status or of the metadata changes no connection.
        if self.spec.as_ref() == Some(&spec) {
            return;
        }
        self.spec = Some(spec.clone());
        let (settings, budget) = match described(&spec, connector) {
            Ok(described) => described,
            Err(refused) => {
                let failure = invalid_tailnet(refused);
                self.give_up_connection(name, failure, connector);
                return;
            }
        };
        let budget = self.take_budget(spec.api_url(), budget);
        let endpoint = Endpoint::of(&spec);
        let connection = self.connection.as_ref();
        // The same API, tailnet and Secret: the client stays, only the guardrails change.
        if connection.is_some_and(|connection| connection.endpoint == endpoint) {
            self.send(Message::Input(Input::Settings(settings)));
            return;
        }
        // The previous connection must not outlive its guardrails
        // (docs/decisions/0009-one-connection-one-set-of-rules.md).
        self.disconnect();
        connector.webhooks().refuse(name);
        self.send(Message::Connection {
            settings: Some(Box::new(settings)),
            client: Err(connecting()),
        });
        self.connections += 1;
        let (number, tailnet, events) = (self.connections, name.to_owned(), events.clone());
        let line = EngineConnection::new(self.mailbox.clone());
        let (asked, asks) = watch::channel(round);
        let reread = Reread::new(asks, move |round| {
            // The registry ends only when the process does.
            let _ = events.send(ControllerEvent::Reread(tailnet.clone(), number, round));
        });
        let connected = connector
            .clone()
            .keep(name.to_owned(), spec, budget, line.clone(), reread);
        let span = info_span!("connection", tailnet = %name);
        self.connection = Some(Connection {
            number,
            endpoint,
            line,
            task: tokio::spawn(connected.instrument(span)).abort_handle(),
            asked,
            read: None,
        });
    }

    /// The spec is invalid: the previous guardrails no longer hold and the new ones are unknown, so nothing may
    /// be sent.
    fn give_up_connection(&mut self, name: &str, failure: Failure, connector: &Connector) {
        // The connection first: no request may go out while the engine learns of it.
        self.disconnect();
        connector.webhooks().refuse(name);
        self.send(Message::Connection {
            settings: None,
            client: Err(failure),
        });
    }

    /// The budget in use, if it is of this API; otherwise a new one.
    fn take_budget(&mut self, url: &str, budget: Budget) -> TailnetBudget {
        let budget = match self.budget.take().filter(|budget| budget.is_of(url)) {
            Some(before) => {
                // The same bucket: an edit of the rate must not refill it.
                before.bucket().set_budget(budget);
                before
            }
            None => TailnetBudget::new(url, budget),
        };
        self.budget = Some(budget.clone());
        budget
    }
}

fn described(
    spec: &TailscaleTailnetSpec,
    connector: &Connector,
) -> Result<(Settings, Budget), Refused> {
    let settings = settings::settings(spec, connector.namespace())?;
    Ok((settings, request_budget(spec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tailnet() -> (TailnetHandle, mpsc::UnboundedReceiver<Message>) {
        let (mailbox, received) = mpsc::unbounded_channel();
        (TailnetHandle::new(mailbox), received)
    }

    fn connected(tailnet: &mut TailnetHandle, number: u64) {
        tailnet.connection = Some(Connection {
            number,
            endpoint: Endpoint::of(&TailscaleTailnetSpec::default()),
            line: EngineConnection::new(tailnet.mailbox.clone()),
            task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
            asked: watch::channel(1).0,
            read: None,
        });
    }

    fn terms(received: &mut mpsc::UnboundedReceiver<Message>) -> Vec<Option<Term>> {
        let mut terms = Vec::new();
        while let Ok(message) = received.try_recv() {
            if let Message::Input(Input::Term(term)) = message {
                terms.push(term);
            }
        }
        terms
    }

    #[tokio::test]
    async fn a_term_starts_only_once_the_credential_was_read_in_its_round() {
        let (mut tailnet, mut received) = tailnet();
        connected(&mut tailnet, 2);
        tailnet.start_term(Term::FIRST, 7);
        tailnet.reread_done(2, 6);
        tailnet.start_term(Term::FIRST, 7);
        // From a connection that was replaced meanwhile.
        tailnet.reread_done(1, 7);
        tailnet.start_term(Term::FIRST, 7);
        assert_eq!(terms(&mut received), []);
        tailnet.reread_done(2, 7);
        tailnet.start_term(Term::FIRST, 7);
        tailnet.start_term(Term::FIRST, 7);
        assert_eq!(terms(&mut received), [Some(Term::FIRST)]);
        tailnet.end_term();
        tailnet.end_term();
        assert_eq!(terms(&mut received), [None]);
    }

    #[tokio::test]
    async fn a_tailnet_without_a_connection_starts_at_once() {
        let (mut tailnet, mut received) = tailnet();
        tailnet.start_term(Term::FIRST, 1);
        assert_eq!(terms(&mut received), [Some(Term::FIRST)]);
    }
}
