//! Forwards each change to the engine of its tailnet.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource as _, ResourceExt as _};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use super::{policy_input::policy_input, tailnet::Tailnet};
use crate::{
    api::{APPROVE, DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet},
    controller::{
        connect::{
            connection::{Connector, no_tailnet, unconnected, unreadable_tailnet},
            environment::{self, Environment},
        },
        election::{Leadership, handover::Handover},
        status,
        watch::{
            Event, Watches,
            stream::{Change, ObjectName},
        },
        write::{
            events::EventWriter,
            finalizer,
            status_writer::{Policies, StatusWriter, Tailnets},
            stored,
        },
    },
    plan::{Approvals, Labels, PolicyKey},
    tailnet::{DeviceLookup, Engine, Input, Message, TailnetDeclared, Term, drive},
};

/// The events that the registry handles.
pub(in crate::controller) enum ControllerEvent {
    /// An event of the watches of this round.
    Watched(u64, Event),
    /// The term in which this process leads, if any.
    Term(Option<Term>),
    /// The connection of this number, of this tailnet, has read its credential in this round.
    Reread(String, u64, u64),
    /// A lookup of a device for an invite.
    DeviceLookup(String, DeviceLookup),
}

/// Knows the tailnet of each policy, and the engine of each tailnet.
pub(in crate::controller) struct TailnetRegistry {
    connector: Connector,
    leadership: Leadership,
    events: EventWriter,
    watches: Watches,
    handover: Handover,
    /// Whether the tailnets have ever been listed.
    tailnets_listed: bool,
    /// The labels of each namespace, and the watch that shows it.
    namespaces: BTreeMap<String, (Labels, usize)>,
    /// The tailnet of each policy, and the watch that shows it.
    policies: HashMap<PolicyKey, (String, usize)>,
    tailnets: BTreeMap<String, Tailnet>,
    policy_board: Arc<Policies>,
    tailnet_board: Arc<Tailnets>,
    engines: JoinSet<()>,
    stop_engines: CancellationToken,
    /// How long a deleted policy may wait for its devices to be cleared.
    clear_timeout: Duration,
}

impl TailnetRegistry {
    pub fn new(
        connector: Connector,
        events: EventWriter,
        leadership: Leadership,
        watches: Watches,
        clear_timeout: Duration,
    ) -> Self {
        Self {
            events,
            connector,
            leadership,
            handover: Handover::new(watches.count()),
            watches,
            tailnets_listed: false,
            namespaces: BTreeMap::new(),
            policies: HashMap::new(),
            tailnets: BTreeMap::new(),
            policy_board: Arc::default(),
            tailnet_board: Arc::default(),
            engines: JoinSet::new(),
            stop_engines: CancellationToken::new(),
            clear_timeout,
        }
    }

    /// Forwards events until `stop` is cancelled, then tells the engines to end.
    pub async fn run(
        mut self,
        mut news: mpsc::UnboundedReceiver<ControllerEvent>,
        stop: CancellationToken,
    ) -> Self {
        self.watches.restart();
        while let Some(Some(item)) = stop.run_until_cancelled(news.recv()).await {
            match item {
                ControllerEvent::Watched(round, event) if round == self.watches.round() => {
                    self.watched(event);
                }
                // From an earlier round: stale.
                ControllerEvent::Watched(..) => {}
                ControllerEvent::DeviceLookup(tailnet, inquiry) => {
                    self.send(&tailnet, Message::DeviceLookup(inquiry));
                }
                ControllerEvent::Term(term) => self.take_term(term),
                ControllerEvent::Reread(tailnet, number, round) => {
                    self.engine(&tailnet).reread_done(number, round);
                }
            }
            self.start_terms();
        }
        self.stop_engines.cancel();
        self
    }

    /// Waits until every engine has finished its requests in flight.
    pub async fn drained(mut self) {
        while self.engines.join_next().await.is_some() {}
    }

    fn watched(&mut self, event: Event) {
        let completes = event.completes();
        match event {
            Event::Policy(source, change) => self.policy(source, change),
            Event::Tailnet(change) => self.tailnet(change),
            Event::Namespace(source, change) => self.namespace(source, change),
        }
        if completes.is_some_and(|source| self.handover.listed(source)) {
            self.send_to_all(|| Input::PoliciesListed);
        }
    }

    /// Ends the current term of the engines. The next one starts with lists of its own.
    fn take_term(&mut self, term: Option<Term>) {
        for tailnet in self.tailnets.values_mut() {
            tailnet.end_term();
        }
        self.handover.begin(term);
        if term.is_some() {
            self.watches.restart();
            for tailnet in self.tailnets.values() {
                tailnet.reread(self.watches.round());
            }
        }
    }

    /// Starts the term for the engines that are ready for it.
    fn start_terms(&mut self) {
        if let Some(term) = self.handover.ready() {
            let round = self.watches.round();
            for tailnet in self.tailnets.values_mut() {
                tailnet.start_term(term, round);
            }
        }
    }

    fn policy(&mut self, source: usize, change: Change<TailscaleDevicePolicy>) {
        match change {
            Change::Applied(object) => self.policy_applied(source, &object),
            Change::Deleted(name) => self.policy_gone(&policy_key(name)),
            Change::Listed(names) => {
                let gone =
                    |key: &&PolicyKey| !names.contains(&(key.namespace.clone(), key.name.clone()));
                let of_source = self
                    .policies
                    .iter()
                    .filter(|(_, (_, from))| *from == source);
                let gone: Vec<_> = of_source
                    .map(|(key, _)| key)
                    .filter(gone)
                    .cloned()
                    .collect();
                for key in &gone {
                    self.policy_gone(key);
                }
            }
        }
    }

    fn policy_applied(&mut self, source: usize, object: &DeserializeGuard<TailscaleDevicePolicy>) {
        let key = policy_key((object.namespace().unwrap_or_default(), object.name_any()));
        // A policy under deletion no longer declares anything, even if another finalizer still keeps it.
        let held_up = finalizer::is_on(object.meta());
        if object.meta().deletion_timestamp.is_some() && !held_up {
            self.policy_gone(&key);
            return;
        }
        if let Err(unreadable) = &object.0 {
            warn!(policy = %key, "the policy cannot be parsed: {}; its devices stay as they are", unreadable.error);
        }
        let before = self.policies.get(&key).map(|(name, _)| name.clone());
        let stored = stored::policy(object, before.as_deref());
        let tailnet = stored.status.tailnet.clone();
        if before.is_some_and(|before| before != tailnet) {
            self.policy_gone(&key);
        }
        let status = stored.status.status.clone();
        let known = self.policy_board.seen(&key, stored);
        // Our own write may look like an edit if the watch is faster than its answer: the status is then
        // derived again, is the same, and is not written.
        let edited = known.is_some_and(|known| known.status.status != status);
        let declared = policy_input(&key, object, self.clear_timeout);
        self.policies.insert(key.clone(), (tailnet.clone(), source));
        self.send(&tailnet, Message::Input(Input::Policy(Box::new(declared))));
        if edited {
            self.send(&tailnet, Message::Input(Input::StatusEdited(Some(key))));
        }
    }

    fn policy_gone(&mut self, key: &PolicyKey) {
        self.policy_board.gone(key);
        self.connector.metrics.policy_gone(key);
        if let Some((tailnet, _)) = self.policies.remove(key) {
            self.send(&tailnet, Message::Input(Input::PolicyGone(key.clone())));
        }
    }

    fn tailnet(&mut self, change: Change<TailscaleTailnet>) {
        match change {
            Change::Applied(object) => {
                self.replace_environment_tailnet(&object.name_any());
                self.tailnet_seen(*object);
            }
            Change::Deleted((_, name)) => self.tailnet_gone(&name),
            Change::Listed(names) => {
                let first = !self.tailnets_listed;
                let gone = |name: &&String| {
                    let listed = names.contains(&(String::new(), (*name).clone()));
                    // The tailnet from the environment has no resource that could be deleted.
                    !listed && (first || self.use_environment_tailnet(name).is_none())
                };
                let gone: Vec<_> = self.tailnets.keys().filter(gone).cloned().collect();
                self.tailnets_listed = true;
                for name in &gone {
                    self.tailnet_gone(name);
                }
                if self.use_environment_tailnet(environment::DEFAULT).is_some() {
                    self.engine(environment::DEFAULT);
                }
            }
        }
    }

    fn tailnet_seen(&mut self, object: DeserializeGuard<TailscaleTailnet>) {
        let name = object.name_any();
        if object.meta().deletion_timestamp.is_some() {
            self.tailnet_gone(&name);
            return;
        }
        let stored = stored::tailnet(&object);
        let status = stored.status.status.clone();
        let known = self.tailnet_board.seen(&name, stored);
        let edited = known.is_some_and(|known| known.status.status != status);
        match object.0 {
            Ok(object) => self.tailnet_applied(object),
            Err(invalid) => self.tailnet_unreadable(&name, &invalid.error),
        }
        if edited {
            self.send(&name, Message::Input(Input::StatusEdited(None)));
        }
    }

    /// A resource replaces the connection from the environment for the lifetime of the process.
    fn replace_environment_tailnet(&mut self, tailnet: &str) {
        if let Some(environment) = self.use_environment_tailnet(tailnet) {
            info!("a TailscaleTailnet replaces the connection from the environment");
            let budget = environment.budget();
            self.engine(tailnet).inherit(budget);
            self.connector.environment = None;
        }
    }

    /// The connection from the environment, if this is its tailnet.
    fn use_environment_tailnet(&self, tailnet: &str) -> Option<&Environment> {
        let environment = self.connector.environment.as_ref();
        environment.filter(|_| tailnet == environment::DEFAULT)
    }

    /// The message to the engine of a tailnet without a resource.
    fn without_resource(&self, name: &str) -> Message {
        self.use_environment_tailnet(name).map_or_else(
            // Nobody permits or forbids anything there.
            || Message::Connection {
                settings: Some(Box::new(unconnected())),
                client: Err(no_tailnet(name)),
            },
            Environment::message,
        )
    }

    fn tailnet_applied(&mut self, object: TailscaleTailnet) {
        let name = object.name_any();
        let approve = object.annotations().get(APPROVE).map(String::as_str);
        let declared = TailnetDeclared {
            approvals: Approvals::parse(approve),
            recent: object
                .status
                .as_ref()
                .map(status::recent)
                .unwrap_or_default(),
            reserved: object
                .status
                .as_ref()
                .map(status::reserved)
                .unwrap_or_default(),
            deletions: object
                .status
                .as_ref()
                .map(status::deletions)
                .unwrap_or_default(),
        };
        self.send(&name, Message::Input(Input::Tailnet(declared)));
        let connector = self.connector.clone();
        let (round, news) = (self.watches.round(), self.watches.news());
        self.engine(&name)
            .connect(&name, object.spec, connector, (round, news));
    }

    /// Its guardrails are unknown, so its connection is closed.
    fn tailnet_unreadable(&mut self, name: &str, error: &str) {
        warn!(
            tailnet = name,
            "the TailscaleTailnet cannot be parsed: {error}; nothing is sent until it can be"
        );
        self.engine(name).forget_spec();
        self.connector.webhooks.refuse(name);
        let client = Err(unreadable_tailnet(name, error));
        let settings = None;
        self.send(name, Message::Connection { settings, client });
    }

    fn tailnet_gone(&mut self, name: &str) {
        self.tailnet_board.gone(&name.to_owned());
        let tailnet = self.engine(name);
        tailnet.forget_spec();
        self.connector.webhooks.refuse(name);
        let message = self.without_resource(name);
        self.send(name, message);
    }

    fn namespace(&mut self, source: usize, change: Change<Namespace>) {
        match change {
            Change::Applied(object) => {
                let labels = object.meta().labels.clone().unwrap_or_default();
                let name = object.name_any();
                self.namespaces
                    .insert(name.clone(), (labels.clone(), source));
                self.send_to_all(|| Input::Namespace(name.clone(), Some(labels.clone())));
            }
            Change::Deleted((_, name)) => self.namespace_gone(&name),
            Change::Listed(names) => {
                let gone = self.namespaces.iter().filter(|(name, (_, from))| {
                    *from == source && !names.contains(&(String::new(), (*name).clone()))
                });
                let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
                for name in &gone {
                    self.namespace_gone(name);
                }
            }
        }
    }

    fn namespace_gone(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.send_to_all(|| Input::Namespace(name.to_owned(), None));
    }

    fn send_to_all(&self, input: impl Fn() -> Input) {
        for tailnet in self.tailnets.values() {
            tailnet.send(Message::Input(input()));
        }
    }

    fn send(&mut self, tailnet: &str, message: Message) {
        self.engine(tailnet).send(message);
    }

    fn engine(&mut self, name: &str) -> &mut Tailnet {
        if !self.tailnets.contains_key(name) {
            let tailnet = self.start(name);
            self.tailnets.insert(name.to_owned(), tailnet);
        }
        self.tailnets
            .entry(name.to_owned())
            .or_insert_with(|| unreachable!("inserted above"))
    }

    fn start(&mut self, name: &str) -> Tailnet {
        let (mailbox, received) = mpsc::unbounded_channel();
        let labels = self.namespaces.iter().map(|(name, (labels, _))| {
            Message::Input(Input::Namespace(name.clone(), Some(labels.clone())))
        });
        let mut first: Vec<Message> = labels.collect();
        if self.handover.complete_once() {
            first.push(Message::Input(Input::PoliciesListed));
        }
        if self.tailnets_listed {
            first.push(self.without_resource(name));
        }
        for message in first {
            let _ = mailbox.send(message);
        }
        let writer = StatusWriter {
            tailnet: name.to_owned(),
            client: self.connector.cluster.clone(),
            events: self.events.clone(),
            policies: Arc::clone(&self.policy_board),
            tailnets: Arc::clone(&self.tailnet_board),
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.connector.metrics),
            readiness: Arc::clone(&self.connector.readiness),
        };
        let engine = Engine::new(unconnected(), fastrand::u64(..));
        let driven = drive(
            engine,
            received,
            Arc::new(writer),
            self.stop_engines.clone(),
        );
        let driven = driven.instrument(info_span!("tailnet", name));
        self.engines.spawn(async move {
            driven.await;
        });
        Tailnet::new(mailbox)
    }
}

fn policy_key((namespace, name): ObjectName) -> PolicyKey {
    PolicyKey { namespace, name }
}
