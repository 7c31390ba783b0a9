//! The objects of the cluster that the controller writes.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, Resource};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{
    event::Event,
    events::EventWriter,
    object_cache::ObjectCache,
    status_patch::{NotWritten, Part, Target, write_status},
    stored::{StoredPolicy, StoredTailnet},
    transitions::Transitions,
};
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet},
    controller::{
        election::Leadership,
        serve::{metrics::Metrics, traces},
        watch::readiness::Readiness,
    },
    plan::PolicyKey,
    tailnet::Term,
};

type Policies = ObjectCache<PolicyKey, StoredPolicy>;
type Tailnets = ObjectCache<String, StoredTailnet>;

/// The objects of the cluster that the controller writes: as they are stored, and the means to write them.
pub(in crate::controller) struct Objects {
    client: Client,
    events: EventWriter,
    policies: Policies,
    tailnets: Tailnets,
    transitions: Transitions,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

impl Objects {
    pub fn new(
        client: Client,
        events: EventWriter,
        leadership: Leadership,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            events,
            policies: Policies::default(),
            tailnets: Tailnets::default(),
            transitions: Transitions::default(),
            leadership,
            metrics,
            readiness,
        })
    }

    /// The policies as they are stored.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// A policy is gone.
    pub fn policy_gone(&self, key: &PolicyKey) {
        if let Some(known) = self.policies.get(key) {
            self.transitions.forget(known.uid());
        }
        self.policies.gone(key);
        self.metrics.policy_gone(key);
    }

    /// The tailnets as they are stored.
    pub fn tailnets(&self) -> &Tailnets {
        &self.tailnets
    }

    /// A tailnet is gone.
    pub fn tailnet_gone(&self, name: &str) {
        let name = name.to_owned();
        if let Some(known) = self.tailnets.get(&name) {
            self.transitions.forget(known.uid());
        }
        self.tailnets.gone(&name);
    }

    pub(super) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Must be checked before each write.
    pub(super) fn leads(&self, term: Term) -> bool {
        self.leadership.leads(term)
    }

    pub(super) fn policy_api(
        &self,
        key: &PolicyKey,
    ) -> Api<DeserializeGuard<TailscaleDevicePolicy>> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    pub(super) fn tailnet_api(&self) -> Api<DeserializeGuard<TailscaleTailnet>> {
        Api::all(self.client.clone())
    }

    /// Guarded, as the response is the whole object: an object whose spec cannot be parsed has a
    /// status too.
    pub(super) async fn write<K, S>(
        &self,
        term: Term,
        api: &Api<DeserializeGuard<K>>,
        over: Target<'_>,
        part: Part<'_, S>,
    ) -> Result<String, NotWritten>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        S: Serialize,
    {
        // A report may have waited for its turn, and its term may have ended meanwhile.
        if !self.leads(term) {
            return Err(NotWritten::Failed);
        }
        let (began, namespace, name) = (Instant::now(), over.namespace, over.name);
        let written = write_status(api, over, part, (&self.metrics, &self.readiness)).await;
        let (kind, took) = (K::kind(&()), began.elapsed());
        traces::wrote_status(&kind, namespace, name, took, written.is_ok());
        written
    }

    /// Writes an Event about a tailnet, if that can be done at once.
    pub(super) async fn publish_tailnet(&self, name: &str, uid: &str, event: &Event) {
        let about = ObjectReference {
            api_version: Some(TailscaleTailnet::api_version(&()).into_owned()),
            kind: Some(TailscaleTailnet::kind(&()).into_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.events.publish(event, &about).await;
    }

    /// Writes an Event about a policy, if that can be done at once.
    pub(super) async fn publish(&self, key: &PolicyKey, uid: &str, event: &Event) {
        let about = ObjectReference {
            api_version: Some(TailscaleDevicePolicy::api_version(&()).into_owned()),
            kind: Some(TailscaleDevicePolicy::kind(&()).into_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.events.publish(event, &about).await;
    }
}
