//! Writes the reports of the engines as status of the objects, and Events.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{
    api_server::{MAX_WAIT, unwritable},
    finalizer::{self, FINALIZER, Patched},
    notifications,
    object_cache::Known,
    objects::Objects,
    status_patch::{NotWritten, Part},
    stored::{self, StoredPolicy},
};
use crate::{
    api::TailscaleTailnetStatus as TailnetStatus,
    controller::{
        serve::{metrics::TailnetMetrics, traces},
        status,
    },
    plan::PolicyKey,
    tailnet::{
        Backlog, Notification, PolicyReport, Recorded, Reporter, State, TailnetReport, Term,
    },
};

/// How often a status is derived and written again at once if the object has changed.
const TRIES: u32 = 3;

/// Writes the status of one tailnet's objects, and their Events.
pub(in crate::controller) struct StatusWriter {
    tailnet: String,
    objects: Arc<Objects>,
    /// What was logged of a tailnet that has no object, as that of the environment.
    logged: Mutex<TailnetStatus>,
}

impl StatusWriter {
    pub fn new(tailnet: &str, objects: Arc<Objects>) -> Self {
        Self {
            tailnet: tailnet.to_owned(),
            objects,
            logged: Mutex::default(),
        }
    }
}

impl Reporter for StatusWriter {
    fn may_write(&self, term: Term) -> bool {
        self.objects.leads(term)
    }

    async fn policy(&self, term: Term, key: &PolicyKey, report: &PolicyReport) -> Recorded {
        let began = Instant::now();
        let recorded = self.record_policy(term, key, report).await;
        if let Some(metrics) = self.metrics() {
            metrics.reconciled(began.elapsed());
        }
        recorded
    }

    async fn tailnet(&self, term: Term, report: &TailnetReport) -> bool {
        if let Some(metrics) = self.metrics() {
            metrics.reported(report);
        }
        for _ in 0..TRIES {
            match self.try_tailnet(term, report).await {
                // A resource that is gone leaves nothing to retry.
                Ok(()) | Err(NotWritten::Gone) => return true,
                Err(NotWritten::Outdated) if self.read_tailnet().await => {}
                Err(NotWritten::Outdated | NotWritten::Failed) => break,
            }
        }
        false
    }

    async fn notify(&self, term: Term, key: &PolicyKey, notification: &Notification) {
        // Each of its policies reports it, but it is one change: the metric counts it once.
        if let Notification::Changed(difference) = notification
            && difference.owner == *key
            && let Some(metrics) = self.metrics()
        {
            metrics.changed(difference);
        }
        let Some(event) = notifications::log(key, &self.tailnet, notification) else {
            return;
        };
        // Another leader reports by itself.
        if self.objects.leads(term)
            && let Some(known) = self.objects.policies().get(key)
            // The engine of its new tailnet reports a policy that has moved.
            && known.stored().tailnet() == self.tailnet
        {
            self.objects.publish(key, known.uid(), &event).await;
        }
    }

    fn stepped(&self, took: Duration) {
        traces::planned(&self.tailnet, took);
        if let Some(metrics) = self.metrics() {
            metrics.planned(took);
        }
    }

    fn waits(&self, backlog: Backlog) {
        if let Some(metrics) = self.metrics() {
            metrics.waits(backlog);
        }
    }
}

impl StatusWriter {
    /// The metrics of the tailnet, unless its resource is gone.
    fn metrics(&self) -> Option<Arc<TailnetMetrics>> {
        self.objects.metrics().tailnet(&self.tailnet)
    }

    async fn record_policy(&self, term: Term, key: &PolicyKey, report: &PolicyReport) -> Recorded {
        for _ in 0..TRIES {
            match self.try_policy(term, key, report).await {
                Ok(()) => return Recorded::Yes,
                Err(NotWritten::Gone) => return Recorded::Gone,
                Err(NotWritten::Outdated) if self.read_policy(key).await => {}
                Err(NotWritten::Outdated | NotWritten::Failed) => break,
            }
        }
        Recorded::No
    }

    async fn try_policy(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> Result<(), NotWritten> {
        let clears = !report.record.managed.is_empty();
        let is_deleting = matches!(report.state, State::Deleting(_));
        // The policy has the finalizer as long as its status records managed devices: so it is added
        // before the status is written, and removed afterwards. Both change the policy's version.
        if clears || is_deleting {
            self.settle_finalizer(term, key, report).await?;
        }
        // Nothing is recorded and the finalizer is removed, so the object may be gone by now.
        if is_deleting && !clears {
            return Ok(());
        }
        let known = self.own(key, report).ok_or(NotWritten::Gone)?;
        let old = known.stored().status().read();
        let new = status::of_policy(&old, report, &self.tailnet, Timestamp::now());
        // Before the comparison: after a restart the metrics are empty, and the status may be up to
        // date.
        let metrics = self.objects.metrics();
        metrics.policy(&self.tailnet, key, &new.conditions, report);
        // Unknown is not zero: the last number stays.
        if let Some(devices) = new.matched_devices {
            metrics.policy_matches(key, devices);
        }
        if new != old {
            let (api, over) = (
                self.objects.policy_api(key),
                known.target(&key.namespace, &key.name),
            );
            let version = self
                .objects
                .write(term, &api, over, Part::Whole(&new))
                .await?;
            let policies = self.objects.policies();
            let conditions = (&*old.conditions, &*new.conditions);
            let transitions = self.objects.transitions();
            let events = [
                transitions.of_policy(known.uid(), conditions, report),
                notifications::of_release(key, &old, &new),
            ];
            policies.wrote(key, known.uid(), version, |stored| stored.set_status(&new));
            for event in events.into_iter().flatten() {
                self.objects.publish(key, known.uid(), &event).await;
            }
        }
        // After the status: if the process ends in between, the next leader removes the finalizer.
        if clears {
            return Ok(());
        }
        self.settle_finalizer(term, key, report).await
    }

    async fn try_tailnet(&self, term: Term, report: &TailnetReport) -> Result<(), NotWritten> {
        let Some(known) = self.objects.tailnets().get(&self.tailnet) else {
            self.log_tailnet(report);
            return Err(NotWritten::Gone);
        };
        let old = known.stored().status();
        let mut new = status::of_tailnet(old, report, known.generation(), Timestamp::now());
        let policies = self.objects.policies();
        let own = |policy: &StoredPolicy| policy.tailnet() == self.tailnet;
        // As their statuses say, so that the two tables of kubectl agree.
        let not_ready = policies.count(|policy| own(policy) && !policy.is_ready());
        let held = policies.count(|policy| own(policy) && policy.is_held());
        status::count_policies(&mut new, not_ready, held);
        status::settle_poll_time(&mut new, old);
        let readable = known.stored().is_readable();
        // The rest may be a newer release's (docs/decisions/0024-unreadable-objects-are-left-alone.md).
        if !readable {
            new = TailnetStatus {
                conditions: new.conditions,
                observed_generation: new.observed_generation,
                ..old.clone()
            };
        }
        if new == *old {
            return Ok(());
        }
        let api = self.objects.tailnet_api();
        let over = known.target("", &self.tailnet);
        let part = if readable {
            Part::Whole(&new)
        } else {
            Part::Conditions(&new.conditions, known.generation())
        };
        let version = self.objects.write(term, &api, over, part).await?;
        let (transitions, name, uid) = (self.objects.transitions(), &self.tailnet, known.uid());
        let transition = transitions.of_tailnet(uid, &old.conditions, &new.conditions);
        if let Some(event) = transition {
            self.objects.publish_tailnet(name, uid, &event).await;
        }
        // The status remembers what was reported, so that each change is reported once.
        if has_other_unreadable(old, &new) {
            let event = notifications::log_unreadable(&self.tailnet, &report.unreadable);
            self.objects.publish_tailnet(name, uid, &event).await;
        }
        let tailnets = self.objects.tailnets();
        tailnets.wrote(name, uid, version, |stored| stored.set_status(new));
        Ok(())
    }

    /// Logs what has changed. There is no object that could have an Event, or remember what was reported.
    fn log_tailnet(&self, report: &TailnetReport) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let new = status::of_tailnet(&logged, report, 0, Timestamp::now());
        let transitions = self.objects.transitions();
        let (old, name) = (&logged.conditions, &self.tailnet);
        if let Some(event) = transitions.of_tailnet(name, old, &new.conditions) {
            event.log_of_tailnet(name);
        }
        if has_other_unreadable(&logged, &new) {
            notifications::log_unreadable(name, &report.unreadable);
        }
        *logged = new;
    }

    /// The policy of a report, if it still exists and belongs to this tailnet. A later object of
    /// its name, or a policy that moved to another tailnet, has a report of its own.
    fn own(&self, key: &PolicyKey, report: &PolicyReport) -> Option<Known<StoredPolicy>> {
        let known = self.objects.policies().get(key)?;
        let own = known.uid() == report.uid && known.stored().tailnet() == self.tailnet;
        own.then_some(known)
    }

    /// Reads a policy that has changed before its watch showed it. Returns `false` if that failed.
    async fn read_policy(&self, key: &PolicyKey) -> bool {
        match timeout(MAX_WAIT, self.objects.policy_api(key).get_opt(&key.name)).await {
            // If the policy is gone, the next write is answered with 404.
            Ok(Ok(object)) => {
                if let Some(object) = object {
                    let stored = stored::policy(&object, Some(&self.tailnet));
                    self.objects.policies().seen(key, stored);
                }
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn read_tailnet(&self) -> bool {
        let api = self.objects.tailnet_api();
        match timeout(MAX_WAIT, api.get_opt(&self.tailnet)).await {
            Ok(Ok(object)) => {
                if let Some(object) = object {
                    self.objects
                        .tailnets()
                        .seen(&self.tailnet, stored::tailnet(&object));
                }
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Adds or removes the finalizer as a report requires.
    async fn settle_finalizer(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> Result<(), NotWritten> {
        let known = self.own(key, report).ok_or(NotWritten::Gone)?;
        let uid = known.uid();
        let wanted = !report.record.managed.is_empty();
        if known.stored().has_finalizer() == wanted {
            return Ok(());
        }
        // `Objects::write` checks this for a status, but a finalizer does not pass through it.
        if !self.objects.leads(term) {
            return Err(NotWritten::Failed);
        }
        // Before the finalizer is removed: afterwards the policy can be gone.
        if let State::Deleting(Some(abandoned)) = &report.state {
            let event = notifications::log_abandoned(key, abandoned);
            self.objects.publish(key, uid, &event).await;
        }
        let api = self.objects.policy_api(key);
        let patched = async {
            if wanted {
                finalizer::add(&api, known.target(&key.namespace, &key.name)).await
            } else {
                finalizer::remove(&api, &key.name, uid, |object| {
                    let stored = stored::policy(object, Some(&self.tailnet));
                    self.objects.policies().seen(key, stored);
                })
                .await
            }
        };
        let error = match timeout(MAX_WAIT, patched).await {
            Ok(Patched::Done(version)) => {
                let policies = self.objects.policies();
                policies.wrote(key, uid, version, |stored| stored.set_finalizer(wanted));
                let what = unwritable("the finalizers of TailscaleDevicePolicy", &key.namespace);
                self.objects.readiness().tried(&what, Ok(()));
                return Ok(());
            }
            Ok(Patched::Gone) => return Err(NotWritten::Gone),
            Ok(Patched::Outdated) => return Err(NotWritten::Outdated),
            Ok(Patched::NotPermitted(why)) => {
                let what = unwritable("the finalizers of TailscaleDevicePolicy", &key.namespace);
                self.objects.readiness().tried(&what, Err(&why));
                why
            }
            Ok(Patched::Failed(error)) => error,
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        let action = if wanted { "added to" } else { "removed from" };
        warn!(policy = %key, "the finalizer {FINALIZER} could not be {action} the policy: {error}; trying again");
        Err(NotWritten::Failed)
    }
}

/// Whether devices that cannot be read are in a status, and others than before.
fn has_other_unreadable(old: &TailnetStatus, new: &TailnetStatus) -> bool {
    let unreadable =
        |it: &TailnetStatus| (it.unreadable_devices.clone(), it.unreadable_devices_total);
    new.unreadable_devices_total.is_some() && unreadable(old) != unreadable(new)
}
