//! Writes Events. A lost Event costs nothing else; a missing permission is reported once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1 as events},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::Status,
};
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    api_server::{MANAGER, MAX_WAIT, not_permitted},
    event::Event,
    repeats::{Occasion, Occurrence, Repeats, WINDOW},
};
use crate::plan::PolicyKey;

/// Characters: the API server refuses names of more than 253.
const MAX_NAME: usize = 253;

/// How long repetitions are collected before their count is written.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// Writes Events if that is permitted.
#[derive(Clone)]
pub(in crate::controller) struct EventWriter {
    client: Client,
    /// The pod that reports them.
    instance: String,
    refused: Arc<Mutex<Refused>>,
    repeats: Arc<Mutex<Repeats>>,
}

impl EventWriter {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            // In a pod, the host name is the name of the pod.
            instance: std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned()),
            refused: Arc::default(),
            repeats: Arc::default(),
        }
    }

    /// Writes an Event about an object, with one retry, and logs the Event of a state. One that repeats another is
    /// counted, and its count is written after a while.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) {
        let occasion = Occasion::new(about.uid.as_deref().unwrap_or_default(), event);
        let occurrence = self.repeats().note(&occasion, Instant::now());
        if self.repeats().start_pruning() {
            tokio::spawn(forget_repeats(Arc::downgrade(&self.repeats)));
        }
        match occurrence {
            Occurrence::First => {}
            Occurrence::Repeated { is_scheduled } => {
                if !is_scheduled {
                    self.schedule(occasion, event, about);
                }
                return;
            }
        }
        if event.is_state() {
            log_state(event, about);
        }
        if let Some(name) = self.create(event, about).await {
            self.repeats().written(&occasion, &name);
        } else if !self.repeats().retry(&occasion) {
            self.schedule(occasion, event, about);
        }
    }

    fn schedule(&self, occasion: Occasion, event: &Event, about: &ObjectReference) {
        let (writer, event, about) = (self.clone(), event.clone(), about.clone());
        tokio::spawn(async move { writer.count(&occasion, &event, &about).await });
    }

    /// Writes how often an Event was repeated, a while after the first repetition, or the Event itself if it
    /// could not be written: the next transition of a tailnet may be far.
    async fn count(&self, occasion: &Occasion, event: &Event, about: &ObjectReference) {
        tokio::time::sleep(COUNT_EVERY).await;
        let Some((name, count)) = self.repeats().take_count(occasion) else {
            return;
        };
        if event.is_state() && count > 1 {
            event.log_repeated(&object_name(about), count);
        }
        let Some(name) = name else {
            if let Some(name) = self.create(event, about).await {
                self.repeats().written(occasion, &name);
            }
            return;
        };
        let series = json!({"count": count, "lastObservedTime": MicroTime(Timestamp::now())});
        let patch = Patch::Merge(json!({"series": series}));
        let parameters = PatchParams::default();
        let api = self.api(about);
        // An Event that expired, or a role of an earlier release: the log has the count.
        match timeout(MAX_WAIT, api.patch(&name, &parameters, &patch)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(name, "the Event was not counted: {error}"),
            Err(_) => debug!(name, "the Event was not counted in time"),
        }
    }

    /// Events about objects without a namespace are in `default`, as the API server demands.
    fn api(&self, about: &ObjectReference) -> Api<events::Event> {
        let stored_in = about.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.client.clone(), stored_in)
    }

    /// Creates an Event. Returns its name.
    async fn create(&self, event: &Event, about: &ObjectReference) -> Option<String> {
        let namespace = about.namespace.as_deref().unwrap_or_default();
        let api = self.api(about);
        let event = self.object(event, about, Timestamp::now());
        let parameters = PostParams::default();
        match timeout(MAX_WAIT, api.create(&parameters, &event)).await {
            Ok(Ok(_)) => {
                if self.refused().note(namespace, false) {
                    info!("Events can be written again");
                }
                return event.metadata.name;
            }
            Ok(Err(kube::Error::Api(answer))) if lacks_permission(&answer) => {
                if self.refused().note(namespace, true) {
                    let why = not_permitted(&answer.message);
                    warn!("Events cannot be written: {why}");
                }
            }
            Ok(Err(error)) => debug!(namespace, "the Event was not written: {error}"),
            Err(_) => debug!(namespace, "the Event was not written in time"),
        }
        None
    }

    /// The Event as an object. The recorder of kube makes names that are too long for an object with a long
    /// name, and counts Events with the same reason without their different notes.
    fn object(&self, event: &Event, about: &ObjectReference, now: Timestamp) -> events::Event {
        events::Event {
            action: Some(event.action().to_owned()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                name: Some(name(about.name.as_deref().unwrap_or(MANAGER), now)),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            note: Some(event.note().to_owned()),
            reason: Some(event.reason().to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(event.kind().to_owned()),
            ..events::Event::default()
        }
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the Events of a burst once their window is over: the next Event may come much later.
async fn forget_repeats(repeats: Weak<Mutex<Repeats>>) {
    loop {
        tokio::time::sleep(WINDOW).await;
        let Some(repeats) = repeats.upgrade() else {
            return;
        };
        let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if !repeats.prune_later(Instant::now()) {
            return;
        }
    }
}

/// Logs the Event of a state.
fn log_state(event: &Event, about: &ObjectReference) {
    let name = about.name.clone().unwrap_or_default();
    match &about.namespace {
        Some(namespace) => event.log_of(&PolicyKey::new(namespace, &name)),
        None => event.log_of_tailnet(&name),
    }
}

/// `network/fra-router`; the name alone of an object without a namespace.
fn object_name(about: &ObjectReference) -> String {
    let name = about.name.as_deref().unwrap_or_default();
    match &about.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// The name of an Event about an object: that of the object, and the time. Of a long name, the end gives way to
/// a hash of the whole.
fn name(about: &str, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let room = MAX_NAME - time.len() - 1;
    if about.len() <= room {
        return format!("{about}.{time}");
    }
    let hash = digest(&SHA256, about.as_bytes());
    let hash: Vec<String> = hash.as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let hash = hash.concat();
    // The names of objects are ASCII. A part between dots ends with a letter or a digit.
    let start = about.get(..room - hash.len() - 1).unwrap_or_default();
    let start = start.trim_end_matches(['.', '-']);
    format!("{start}-{hash}.{time}")
}

/// The API server also forbids new objects in a namespace that is being deleted: that is not a
/// missing permission.
fn lacks_permission(answer: &Status) -> bool {
    let mut causes = answer.details.iter().flat_map(|details| &details.causes);
    answer.is_forbidden() && !causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The namespaces in which the controller may not write Events.
#[derive(Default)]
struct Refused(BTreeSet<String>);

impl Refused {
    /// Records the outcome of a write. Returns whether to log it: the first namespace that refuses
    /// Events, and the last that accepts them again.
    fn note(&mut self, namespace: &str, refused: bool) -> bool {
        let was_empty = self.0.is_empty();
        if refused {
            self.0.insert(namespace.to_owned());
        } else {
            self.0.remove(namespace);
        }
        was_empty != self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_an_event_is_unique_and_not_too_long() {
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        assert_eq!(name("fra", now), "fra.18ebbdd53dd00000");
        for length in 200..=253 {
            for letter in ["a", "a.", "a-b."] {
                let long = letter.repeat(length);
                let (one, other) = (&long[..length - 1], &long[..length - 2]);
                let [one, other] =
                    [format!("{one}1"), format!("{other}12")].map(|about| name(&about, now));
                assert_ne!(one, other);
                for name in [one, other] {
                    assert!(name.len() <= MAX_NAME, "{name}");
                    assert!(!name.contains("-.") && !name.contains(".."), "{name}");
                }
            }
        }
    }

    #[test]
    fn missing_permission_is_reported_once_until_it_is_granted() {
        let mut refused = Refused::default();
        assert!(!refused.note("db", false));
        assert!(refused.note("db", true));
        assert!(!refused.note("db", true));
        assert!(!refused.note("network", true));
        assert!(!refused.note("db", false));
        assert!(refused.note("network", false));
        assert!(refused.note("network", true));
    }
}
