//! A watch as a stream of changes.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::readiness::Watch;
use crate::api::DeserializeGuard;

/// Namespace (empty for what has none) and name.
pub(in crate::controller) type ObjectName = (String, String);

/// A change of the watched objects.
pub(in crate::controller) enum Change<K> {
    /// An object exists, new or changed. An unreadable one does not stop the watch.
    Applied(Box<DeserializeGuard<K>>),
    /// One is gone.
    Deleted(ObjectName),
    /// The complete list of objects; all others are gone.
    Listed(BTreeSet<ObjectName>),
}

/// How long a list may take, up to its next object. kube's client has no read timeout of its own,
/// and a new leader waits for its lists: a dead connection must not block it.
const LIST: Duration = Duration::from_secs(10);

/// Watches these objects forever; failures are retried with a growing backoff.
/// `tell` receives each change and returns `false` once nobody is interested.
pub(in crate::controller) async fn run<K>(
    api: Api<DeserializeGuard<K>>,
    which: watcher::Config,
    health: Arc<Watch>,
    tell: impl Fn(Change<K>) -> bool,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let start = || {
        let events = watcher::watcher(api.clone(), which.clone());
        events.default_backoff().boxed()
    };
    let mut events = start();
    let mut listing = Listing::default();
    loop {
        // After the list, silence is normal: a watch has an event only when something changes.
        let limit = if listing.is_complete {
            Duration::MAX
        } else {
            LIST
        };
        let Ok(event) = timeout(limit, events.next()).await else {
            let error = format!("the API server did not answer within {LIST:?}");
            complain(&health, &error);
            // The request may hang in a dead connection, so it is dropped and not waited for.
            events = start();
            continue;
        };
        let Some(event) = event else {
            return;
        };
        let Some(change) = listing.change(event, &health) else {
            continue;
        };
        if !tell(change) {
            return;
        }
    }
}

/// The list that a watch begins with.
#[derive(Default)]
struct Listing {
    objects: BTreeSet<ObjectName>,
    /// Whether no further object of the list is expected.
    is_complete: bool,
}

impl Listing {
    /// The change that an event stands for, if any.
    fn change<K: Resource<DynamicType = ()>>(
        &mut self,
        event: watcher::Result<Event<DeserializeGuard<K>>>,
        health: &Watch,
    ) -> Option<Change<K>> {
        Some(match event {
            Ok(Event::Init) => {
                // A list that was cut off starts anew, and what it has shown so far is no complete
                // list.
                *self = Self::default();
                return None;
            }
            // Objects are applied while the list runs; only removals wait for its end.
            Ok(Event::InitApply(object)) => {
                self.objects.insert(name(&object));
                Change::Applied(Box::new(object))
            }
            Ok(Event::InitDone) => {
                health.listed();
                // From here on, silence is normal.
                self.is_complete = true;
                Change::Listed(std::mem::take(&mut self.objects))
            }
            Ok(Event::Apply(object)) => {
                health.moved();
                Change::Applied(Box::new(object))
            }
            Ok(Event::Delete(object)) => {
                health.moved();
                Change::Deleted(name(&object))
            }
            Err(error) => {
                complain(health, &list_error(&error));
                // The next event comes after a pause.
                self.is_complete = true;
                return None;
            }
        })
    }
}

fn name<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> ObjectName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn complain(health: &Watch, text: &str) {
    if health.failed(text) {
        warn!(watch = health.name(), "{text}");
    } else {
        debug!(watch = health.name(), "{text}");
    }
}

/// The error, and how to fix it.
fn list_error(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchStartFailed};

    match error {
        // By its code: for a group that the API server does not know it answers in plain text, and
        // no reason is left in what kube makes of that.
        InitialListFailed(kube::Error::Api(answer)) if answer.code == 404 => {
            "the resource definitions are not installed: kubectl apply --server-side -k crds; \
             waiting for them"
                .to_owned()
        }
        InitialListFailed(kube::Error::Api(answer))
        | WatchStartFailed(kube::Error::Api(answer))
            if answer.is_forbidden() =>
        {
            format!(
                "{}; the controller's role does not allow it: kubectl apply -k deploy (for \
                 invites with its component)",
                answer.message
            )
        }
        error => error.to_string(),
    }
}
