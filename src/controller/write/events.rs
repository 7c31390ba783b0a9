//! Writes Events. A lost Event costs nothing else; a missing permission is reported once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    core::Status,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::api_server::{MANAGER, MAX_WAIT, not_permitted};
use crate::controller::status;

/// Bytes: the API server refuses notes of more than 1,024.
const MAX_NOTE: usize = 1000;

/// Writes Events if that is permitted.
#[derive(Clone)]
pub(in crate::controller) struct EventWriter {
    client: Client,
    reporter: Reporter,
    refused: Arc<Mutex<Refused>>,
}

impl EventWriter {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: MANAGER.to_owned(),
                // In a pod, the host name is the name of the pod.
                instance: std::env::var("HOSTNAME").ok(),
            },
            refused: Arc::default(),
        }
    }

    /// Writes an Event about an object, without retries.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) {
        // One recorder for each Event: one that is kept would count up Events of the same reason, and show
        // the first one's note for all of them.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let namespace = about.namespace.as_deref().unwrap_or_default();
        match timeout(MAX_WAIT, recorder.publish(event, about)).await {
            Ok(Ok(())) => {
                if self.refused().note(namespace, false) {
                    info!("Events can be written again");
                }
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
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An Event that everything is as it should be.
pub(in crate::controller) fn normal(reason: &str, action: &str, note: String) -> Event {
    event(EventType::Normal, reason, action, note)
}

/// An Event that people may have to look at.
pub(in crate::controller) fn warning(reason: &str, action: &str, note: String) -> Event {
    event(EventType::Warning, reason, action, note)
}

fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(status::bounded(note, MAX_NOTE)),
        action: action.to_owned(),
        secondary: None,
    }
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
