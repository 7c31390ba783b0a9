//! Forwards each change to the engine of its tailnet.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource as _, ResourceExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    engines::Engines, event::ControllerEvent, handle::TailnetHandle, policy_input::policy_input,
    shown::Shown, sources::Sources,
};
use crate::{
    api::{APPROVE, DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet},
    controller::{
        connect::{connection::Connector, environment::Environment, failures::unreadable_tailnet},
        election::handover::Handover,
        status,
        watch::{
            Watches,
            event::Event,
            stream::{Change, ObjectName},
        },
        write::{finalizer, objects::Objects, stored},
    },
    plan::{Approvals, Labels, PolicyKey},
    tailnet::{Input, Message, TailnetDeclared, Term},
};

/// Knows the tailnet of each policy, and the engine of each tailnet.
pub(in crate::controller) struct TailnetRegistry {
    connector: Connector,
    /// For the events of connections.
    events: mpsc::UnboundedSender<ControllerEvent>,
    watches: Watches,
    handover: Handover,
    sources: Sources,
    /// The labels of each namespace.
    namespaces: Shown<String, Labels>,
    /// The tailnet of each policy.
    policies: Shown<PolicyKey, String>,
    objects: Arc<Objects>,
    engines: Engines,
    /// How long a deleted policy may wait for its devices to be cleared.
    clear_timeout: Duration,
}

impl TailnetRegistry {
    pub fn new(
        connector: Connector,
        environment: Option<Environment>,
        objects: Arc<Objects>,
        watches: Watches,
        events: mpsc::UnboundedSender<ControllerEvent>,
        clear_timeout: Duration,
    ) -> Self {
        Self {
            connector,
            events,
            handover: Handover::new(watches.count()),
            watches,
            sources: Sources::new(environment),
            namespaces: Shown::default(),
            policies: Shown::default(),
            engines: Engines::new(Arc::clone(&objects)),
            objects,
            clear_timeout,
        }
    }

    /// Forwards events until `stop` is cancelled, then tells the engines to end.
    pub async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<ControllerEvent>,
        stop: CancellationToken,
    ) -> Self {
        self.watches.restart();
        while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
            match event {
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
            // After every event, as each may complete what the term waits for: a list, or the read of a
            // credential.
            if let Some(term) = self.handover.ready() {
                self.engines.start_term(term, self.watches.round());
            }
        }
        self.engines.stop();
        self
    }

    /// Waits until every engine has finished its requests in flight.
    pub async fn drained(self) {
        self.engines.drained().await;
    }

    fn watched(&mut self, event: Event) {
        // Counted below, once the list itself has been applied.
        let completes = event.completes();
        match event {
            Event::Policy(watch, change) => self.policy(watch, change),
            Event::Tailnet(change) => self.tailnet(change),
            Event::Namespace(watch, change) => self.namespace(watch, change),
        }
        if completes.is_some_and(|source| self.handover.listed(source)) {
            self.engines.send_to_all(|| Input::PoliciesListed);
        }
    }

    /// Ends the current term of the engines. The next one starts with lists of its own.
    fn take_term(&mut self, term: Option<Term>) {
        self.engines.end_term();
        self.connector.metrics().forget_reports();
        self.handover.begin(term);
        if term.is_some() {
            // Before the reread, which must belong to the round of the new watches.
            self.watches.restart();
            self.engines.reread(self.watches.round());
        }
    }

    fn policy(&mut self, watch: usize, change: Change<TailscaleDevicePolicy>) {
        match change {
            Change::Applied(object) => self.policy_applied(watch, &object),
            Change::Deleted(name) => self.policy_gone(&policy_key(name)),
            Change::Listed(names) => {
                let missing = self.policies.missing(watch, |key| {
                    names.contains(&(key.namespace.clone(), key.name.clone()))
                });
                for key in &missing {
                    self.policy_gone(key);
                }
            }
        }
    }

    fn policy_applied(&mut self, watch: usize, object: &DeserializeGuard<TailscaleDevicePolicy>) {
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
        let before = self.policies.get(&key).cloned();
        let stored = stored::policy(object, before.as_deref());
        let tailnet = stored.stored().tailnet().to_owned();
        // Before the policy is stored again: this also removes it from the cache.
        if before.is_some_and(|before| before != tailnet) {
            self.policy_gone(&key);
        }
        let status = stored.stored().status().clone();
        let known = self.objects.policies().seen(&key, stored);
        // Our own write may look like an edit if the watch is faster than its answer: the status is then
        // derived again, is the same, and is not written.
        let edited = known.is_some_and(|known| *known.stored().status() != status);
        let declared = policy_input(&key, object, self.clear_timeout);
        self.policies.insert(watch, key.clone(), tailnet.clone());
        self.send(&tailnet, Message::Input(Input::Policy(Box::new(declared))));
        if edited {
            self.send(&tailnet, Message::Input(Input::StatusEdited(Some(key))));
        }
    }

    fn policy_gone(&mut self, key: &PolicyKey) {
        self.objects.policy_gone(key);
        if let Some(tailnet) = self.policies.remove(key) {
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
            Change::Listed(names) => self.tailnets_listed(&names),
        }
    }

    fn tailnets_listed(&mut self, names: &BTreeSet<ObjectName>) {
        let from_environment = self.sources.environment_tailnet();
        // The tailnet from the environment has no resource that could be deleted. It is told of its
        // connection with the first list.
        let kept = from_environment.filter(|_| self.sources.are_listed());
        let gone: Vec<String> = self
            .engines
            .names()
            .filter(|name| kept != Some(name.as_str()))
            .filter(|name| !names.contains(&(String::new(), (*name).clone())))
            .cloned()
            .collect();
        // Before an engine is started below, which is told of its connection only if the tailnets
        // are listed.
        self.sources.set_listed();
        for name in &gone {
            self.tailnet_gone(name);
        }
        if let Some(name) = from_environment {
            self.engine(name);
        }
    }

    fn tailnet_seen(&mut self, object: DeserializeGuard<TailscaleTailnet>) {
        let name = object.name_any();
        // A tailnet under deletion counts as gone, even if a finalizer of someone else still keeps it.
        if object.meta().deletion_timestamp.is_some() {
            self.tailnet_gone(&name);
            return;
        }
        let stored = stored::tailnet(&object);
        let status = stored.stored().status().clone();
        let known = self.objects.tailnets().seen(&name, stored);
        let edited = known.is_some_and(|known| *known.stored().status() != status);
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
        if let Some(budget) = self.sources.replace_environment(tailnet) {
            info!("a TailscaleTailnet replaces the connection from the environment");
            self.engine(tailnet).inherit(budget);
        }
    }

    fn tailnet_applied(&mut self, object: TailscaleTailnet) {
        let name = object.name_any();
        let approve = object.annotations().get(APPROVE).map(String::as_str);
        let status = object.status.as_ref();
        let declared = TailnetDeclared {
            approvals: Approvals::parse(approve),
            recent: status.map(status::recent).unwrap_or_default(),
            reserved: status.map(status::reserved).unwrap_or_default(),
            deletions: status.map(status::deletions).unwrap_or_default(),
        };
        // Before the connection: the engine must know what is reserved before it can send a request.
        self.send(&name, Message::Input(Input::Tailnet(declared)));
        let metrics = self.connector.metrics().declare(&name);
        metrics.declared(object.spec.poll_interval().ok());
        let (connector, events) = (self.connector.clone(), self.events.clone());
        let round = self.watches.round();
        self.engine(&name)
            .connect(&name, object.spec, &connector, round, &events);
    }

    /// Its guardrails are unknown, so its connection is closed.
    fn tailnet_unreadable(&mut self, name: &str, error: &str) {
        warn!(
            tailnet = name,
            "the TailscaleTailnet cannot be parsed: {error}; nothing is sent until it can be"
        );
        self.connector.metrics().declare(name).declared(None);
        self.engine(name).forget_spec();
        self.connector.webhooks().refuse(name);
        let client = Err(unreadable_tailnet(name, error));
        let settings = None;
        self.send(name, Message::Connection { settings, client });
    }

    fn tailnet_gone(&mut self, name: &str) {
        self.objects.tailnet_gone(name);
        self.engine(name).forget_spec();
        // The tailnet from the environment has no resource that could be deleted.
        if self.sources.environment_tailnet() != Some(name) {
            self.connector.metrics().tailnet_gone(name);
        }
        self.connector.webhooks().refuse(name);
        let message = self.sources.without_resource(name);
        self.send(name, message);
    }

    fn namespace(&mut self, watch: usize, change: Change<Namespace>) {
        match change {
            Change::Applied(object) => {
                let labels = object.meta().labels.clone().unwrap_or_default();
                let name = object.name_any();
                self.namespaces.insert(watch, name.clone(), labels.clone());
                self.engines
                    .send_to_all(|| Input::Namespace(name.clone(), Some(labels.clone())));
            }
            Change::Deleted((_, name)) => self.namespace_gone(&name),
            Change::Listed(names) => {
                let missing = self
                    .namespaces
                    .missing(watch, |name| names.contains(&(String::new(), name.clone())));
                for name in &missing {
                    self.namespace_gone(name);
                }
            }
        }
    }

    fn namespace_gone(&mut self, name: &String) {
        self.namespaces.remove(name);
        self.engines
            .send_to_all(|| Input::Namespace(name.clone(), None));
    }

    fn send(&mut self, tailnet: &str, message: Message) {
        self.engine(tailnet).send(message);
    }

    /// A new engine receives what the others know.
    fn engine(&mut self, name: &str) -> &mut TailnetHandle {
        let (namespaces, handover, sources) = (&self.namespaces, &self.handover, &self.sources);
        self.engines.get_or_start(name, || {
            let labels = namespaces.iter().map(|(name, labels)| {
                Message::Input(Input::Namespace(name.clone(), Some(labels.clone())))
            });
            let listed = handover
                .complete_once()
                .then_some(Message::Input(Input::PoliciesListed));
            // Until the tailnets are listed, nobody knows whether this one has a resource.
            let unconnected = sources.are_listed().then(|| sources.without_resource(name));
            labels.chain(listed).chain(unconnected).collect()
        })
    }
}

fn policy_key((namespace, name): ObjectName) -> PolicyKey {
    PolicyKey::new(namespace, name)
}
