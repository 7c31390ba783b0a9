//! The finalizer of policies under `deletionPolicy: Clear`: it keeps a deleted policy until its
//! devices are cleared.
//!
//! A policy has it as long as its record has managedDevices: the controller adds it before it
//! writes the record, and so before the first request, and removes it once nothing is left to
//! clear, or once it gives up. It never touches other finalizers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use super::{
    status_patch::{NotWritten, Target, not_permitted, unwritable},
    status_writer::{API_SERVER, MANAGER, StatusWriter, bounded},
    stored,
};
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy},
    plan::PolicyKey,
    tailnet::{Abandoned, PolicyReport, State, Term},
};

const FINALIZER: &str = "tailnet.dev/clear";
/// A manager of its own, so that applying a status does not remove the finalizer.
const FINALIZER_MANAGER: &str = "tsdp-clear";

pub(in crate::controller) fn is_on(meta: &ObjectMeta) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// The outcome of adding or removing the finalizer.
enum Patched {
    /// The policy has this version now.
    Done(String),
    /// The policy is gone.
    Gone,
    /// The policy has changed since it was read.
    Outdated,
    /// The controller's role does not allow it.
    NotPermitted(String),
    Failed(String),
}

impl StatusWriter {
    /// Adds or removes the finalizer as a report requires.
    pub(in crate::controller) async fn settle_finalizer(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> Result<(), NotWritten> {
        let known = self.own(key, report).ok_or(NotWritten::Gone)?;
        let uid = known.uid.as_str();
        let wanted = !report.record.managed.is_empty();
        if known.status.held_up == wanted {
            return Ok(());
        }
        if !self.leadership.leads(term) {
            return Err(NotWritten::Failed);
        }
        if let State::Deleting(Some(abandoned)) = &report.state {
            let note = note(abandoned);
            warn!(policy = %key, "{note}");
            self.publish(key, uid, &not_cleared(note)).await;
        }
        let api = self.api(key);
        let patched = async {
            if wanted {
                put(&api, known.target(&key.namespace, &key.name)).await
            } else {
                self.take_finalizer(&api, key, uid).await
            }
        };
        let error = match timeout(API_SERVER, patched).await {
            Ok(Patched::Done(version)) => {
                let policies = &self.policies;
                policies.wrote(key, uid, version, |stored| stored.held_up = wanted);
                let what = unwritable("the finalizers of TailscaleDevicePolicy", &key.namespace);
                self.readiness.tried(&what, Ok(()));
                return Ok(());
            }
            Ok(Patched::Gone) => return Err(NotWritten::Gone),
            Ok(Patched::Outdated) => return Err(NotWritten::Outdated),
            Ok(Patched::NotPermitted(why)) => {
                let what = unwritable("the finalizers of TailscaleDevicePolicy", &key.namespace);
                self.readiness.tried(&what, Err(&why));
                why
            }
            Ok(Patched::Failed(error)) => error,
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        let action = if wanted { "added to" } else { "removed from" };
        warn!(policy = %key, "the finalizer {FINALIZER} could not be {action} the policy: {error}; trying again");
        Err(NotWritten::Failed)
    }

    /// Removes the finalizer and nothing that was added meanwhile: the API server refuses the patch
    /// if the object has changed since it was read.
    async fn take_finalizer(&self, api: &Policies, key: &PolicyKey, uid: &str) -> Patched {
        let object = match api.get_opt(&key.name).await {
            Ok(Some(object)) if object.meta().uid.as_deref() == Some(uid) => object,
            Ok(_) => return Patched::Gone,
            Err(error) => return Patched::Failed(error.to_string()),
        };
        let stored = stored::policy(&object, Some(&self.tailnet));
        let version = stored.version.clone();
        self.policies.seen(key, stored);
        if !is_on(object.meta()) {
            return Patched::Done(version);
        }
        let others = object.meta().finalizers.iter().flatten();
        let others: Vec<_> = others.filter(|other| *other != FINALIZER).collect();
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": version, "finalizers": others},
        }));
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        patched(api.patch(&key.name, &params, &patch).await)
    }
}

type Policies = Api<DeserializeGuard<TailscaleDevicePolicy>>;

async fn put(api: &Policies, over: Target<'_>) -> Patched {
    let Target { name, uid, at, .. } = over;
    let patch = Patch::Apply(json!({
        "apiVersion": TailscaleDevicePolicy::api_version(&()),
        "kind": TailscaleDevicePolicy::kind(&()),
        // The API server refuses this if another object of the name has replaced this one, or if its
        // deletion has begun.
        "metadata": {
            "name": name, "uid": uid, "resourceVersion": at, "finalizers": [FINALIZER],
        },
    }));
    let params = PatchParams::apply(FINALIZER_MANAGER);
    match patched(api.patch(name, &params, &patch).await) {
        // No request may be sent for it without a finalizer. The watch soon reports that it is gone.
        Patched::Gone => Patched::Failed("it is gone".to_owned()),
        patched => patched,
    }
}

fn patched(answer: kube::Result<DeserializeGuard<TailscaleDevicePolicy>>) -> Patched {
    match answer {
        Ok(object) => Patched::Done(object.meta().resource_version.clone().unwrap_or_default()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Patched::Gone,
        Err(kube::Error::Api(answer)) if answer.is_conflict() => Patched::Outdated,
        Err(kube::Error::Api(answer)) if answer.is_forbidden() => {
            Patched::NotPermitted(not_permitted(&answer.message))
        }
        Err(error) => Patched::Failed(error.to_string()),
    }
}

fn not_cleared(note: String) -> Event {
    Event {
        type_: EventType::Warning,
        reason: "NotCleared".to_owned(),
        note: Some(note),
        action: "Delete".to_owned(),
        secondary: None,
    }
}

/// The settings that stay, their devices, and the reason.
fn note(abandoned: &Abandoned) -> String {
    let mut devices = abandoned.devices.join(", ");
    let more = abandoned.total.saturating_sub(abandoned.devices.len());
    if more > 0 {
        devices = format!("{devices} and {more} more");
    }
    let keys = abandoned.settings.keys.iter().map(ToString::to_string);
    let routes = abandoned.settings.routes.iter().map(ToString::to_string);
    let what = keys.chain(routes).collect::<Vec<_>>().join(", ");
    let keep = if abandoned.total == 1 {
        "keeps"
    } else {
        "keep"
    };
    bounded(format!(
        "{devices} {keep} the settings of the policy ({what}): {}",
        abandoned.why
    ))
}
