//! The watches of all objects that the controller uses. They restart together, and each restart
//! begins a new round: events of an earlier round that are still queued do not count.

pub(super) mod event;
pub(super) mod readiness;
pub(super) mod stream;

use std::sync::Arc;

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{Api, Client, Resource, runtime::watcher};
use tokio::task::JoinSet;

use crate::api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet};
use event::Event;

use readiness::Readiness;
use stream::Change;

/// Receives each event with the round of its watch; returns `false` once nobody is interested.
pub(in crate::controller) type Tell = Arc<dyn Fn(u64, Event) -> bool + Send + Sync>;

/// All watches of one round.
pub(in crate::controller) struct Watches {
    client: Client,
    namespaces: Vec<String>,
    readiness: Arc<Readiness>,
    tell: Tell,
    round: u64,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Watches these namespaces, or all if none is given. Nothing is watched before
    /// [`Self::restart`].
    pub fn new(
        client: Client,
        namespaces: Vec<String>,
        readiness: Arc<Readiness>,
        tell: Tell,
    ) -> Self {
        Self {
            client,
            namespaces,
            readiness,
            tell,
            round: 0,
            tasks: JoinSet::new(),
        }
    }

    /// The number of watches of policies, and of namespaces.
    pub fn count(&self) -> usize {
        self.namespaces.len().max(1)
    }

    /// The present round.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Drops all watches and starts each again with a full list.
    pub fn restart(&mut self) {
        self.round += 1;
        // Dropping the tasks aborts them. Events that they have already sent carry the earlier round.
        self.tasks = JoinSet::new();
        let policies = in_namespaces("policies", &self.client, &self.namespaces);
        for (number, (name, api)) in policies.into_iter().enumerate() {
            let which = watcher::Config::default();
            self.watch::<TailscaleDevicePolicy>(name, api, which, move |change| {
                Event::Policy(number, change)
            });
        }
        let (name, tailnets) = ("tailnets".to_owned(), Api::all(self.client.clone()));
        let which = watcher::Config::default();
        self.watch::<TailscaleTailnet>(name, tailnets, which, Event::Tailnet);
        for (number, (name, which)) in labelled(&self.namespaces).into_iter().enumerate() {
            let namespaces = Api::all(self.client.clone());
            self.watch::<Namespace>(name, namespaces, which, move |change| {
                Event::Namespace(number, change)
            });
        }
    }

    fn watch<K>(
        &mut self,
        name: String,
        api: Api<DeserializeGuard<K>>,
        which: watcher::Config,
        of: impl Fn(Change<K>) -> Event + Send + 'static,
    ) where
        K: Resource<DynamicType = ()>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let (health, tell, round) = (
            self.readiness.watch(name),
            Arc::clone(&self.tell),
            self.round,
        );
        let tell = move |change| tell(round, of(change));
        self.tasks.spawn(stream::run(api, which, health, tell));
    }
}

/// The watches of namespaces, for their labels: of all, or only of these.
fn labelled(namespaces: &[String]) -> Vec<(String, watcher::Config)> {
    if namespaces.is_empty() {
        return vec![("namespaces".to_owned(), watcher::Config::default())];
    }
    namespaces
        .iter()
        .map(|name| {
            // RBAC can restrict a watch by resourceNames only if it has this field selector.
            let which = watcher::Config::default().fields(&format!("metadata.name={name}"));
            (format!("namespace {name}"), which)
        })
        .collect()
}

/// The objects of all namespaces, or only of these; each with a name for the watch.
pub(in crate::controller) fn in_namespaces<K>(
    what: &str,
    client: &Client,
    namespaces: &[String],
) -> Vec<(String, Api<K>)>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    if namespaces.is_empty() {
        return vec![(what.to_owned(), Api::all(client.clone()))];
    }
    namespaces
        .iter()
        .map(|name| {
            let api = Api::namespaced(client.clone(), name);
            (format!("{what} of {name}"), api)
        })
        .collect()
}
