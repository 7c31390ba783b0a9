//! Whether the watches make progress and the controller may write what it must: the response of
//! `/readyz`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Longer than the longest backoff of a watch (30 s and its jitter): a watch without a newer error
/// has been started again by then.
const FAILING: Duration = Duration::from_mins(1);

/// A failure is dropped if nothing has retried for this long.
const FORGOTTEN: Duration = Duration::from_mins(3);

/// The most lines about failures other than those of watches.
const LINES: usize = 5;

/// The state of all watches, and other failures.
#[derive(Debug, Default)]
pub(in crate::controller) struct Readiness {
    watches: Mutex<BTreeMap<String, Arc<Watch>>>,
    tried: Mutex<BTreeMap<String, Failing>>,
}

/// An operation that keeps failing.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

/// The state of one watch.
#[derive(Debug, Default)]
pub(in crate::controller) struct Watch {
    name: String,
    state: Mutex<State>,
    restarts: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    listed: bool,
    error: Option<(Instant, String)>,
}

impl Readiness {
    /// The watch of this name: a new one that has not listed anything yet, or the one that is
    /// restarted, which stays as healthy as it was.
    pub fn watch(&self, name: String) -> Arc<Watch> {
        let mut watches = locked(&self.watches);
        let watch = watches.entry(name).or_insert_with_key(|name| {
            Arc::new(Watch {
                name: name.clone(),
                state: Mutex::default(),
                restarts: AtomicU64::default(),
            })
        });
        Arc::clone(watch)
    }

    /// Records the outcome of an operation that concerns more than one object; `what` names the
    /// failing operation. Returns whether it began to fail or to work.
    pub fn tried(&self, what: &str, outcome: Result<(), &str>) -> bool {
        let mut tried = locked(&self.tried);
        let now = Instant::now();
        match (outcome, tried.get_mut(what)) {
            (Ok(()), _) => tried.remove(what).is_some(),
            (Err(why), Some(failing)) => {
                failing.last = now;
                why.clone_into(&mut failing.why);
                false
            }
            (Err(why), None) => {
                let failing = Failing {
                    since: now,
                    last: now,
                    why: why.to_owned(),
                };
                tried.insert(what.to_owned(), failing);
                true
            }
        }
    }

    /// How often each watch failed and was started again.
    pub fn restarts(&self) -> Vec<(String, u64)> {
        let watches = locked(&self.watches);
        let restarts = watches.values().map(|watch| {
            let count = watch.restarts.load(Relaxed);
            (watch.name.clone(), count)
        });
        restarts.collect()
    }

    /// Why the controller is not ready, a line each; empty: it is ready.
    pub fn obstacles(&self) -> Vec<String> {
        let watches = locked(&self.watches);
        let mut obstacles: Vec<String> = watches
            .values()
            .filter_map(|watch| watch.obstacle())
            .collect();
        let now = Instant::now();
        let mut tried = locked(&self.tried);
        // No success is ever recorded for what is no longer tried, such as an object that is gone.
        tried.retain(|_, failing| now - failing.last < FORGOTTEN);
        let failing = tried
            .iter()
            // One refused write, or one during a rollout of the role, is no reason to be unready.
            .filter(|(_, failing)| now - failing.since >= FAILING)
            .map(|(what, failing)| format!("{what}: {}", failing.why));
        obstacles.extend(failing.take(LINES));
        obstacles
    }
}

impl Watch {
    /// What is watched.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A complete list was seen.
    pub fn listed(&self) {
        *locked(&self.state) = State {
            listed: true,
            error: None,
        };
    }

    /// An event arrived.
    pub fn moved(&self) {
        locked(&self.state).error = None;
    }

    /// The watch failed. Returns whether the error differs from the last.
    pub fn failed(&self, error: &str) -> bool {
        // After each failure, the watch is started again.
        self.restarts.fetch_add(1, Relaxed);
        let mut state = locked(&self.state);
        let is_news = state.error.as_ref().is_none_or(|(_, last)| last != error);
        state.error = Some((Instant::now(), error.to_owned()));
        is_news
    }

    fn obstacle(&self) -> Option<String> {
        let state = locked(&self.state);
        match &state.error {
            // Before the first list, an old error is kept: it is the reason why there is no list.
            Some((at, error)) if at.elapsed() < FAILING || !state.listed => {
                Some(format!("the watch of {} fails: {error}", self.name))
            }
            _ if !state.listed => Some(format!("the watch of {} has not listed yet", self.name)),
            _ => None,
        }
    }
}

/// The state is plain data, so a panic elsewhere leaves nothing half-written.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
