//! The finalizer of policies under `deletionPolicy: Clear`: it keeps a deleted policy until its devices
//! are cleared.
//!
//! It stands on a policy as long as the policy's memory has holdings: put there before they are kept,
//! and so before the first call; taken away once nothing is left to clear, or what is left is given
//! up. Nobody else's finalizer is touched.

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
    board::Board,
    reporter::{API_SERVER, MANAGER, StatusWriter, bounded},
};
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy},
    plan::PolicyKey,
    tailnet::{Abandoned, PolicyReport, State},
};

const FINALIZER: &str = "tailnet.dev/clear";
/// A manager of its own, so that a status that is applied does not take the finalizer away.
const FINALIZER_MANAGER: &str = "tsdp-clear";

/// Whether the finalizer stands on each policy.
pub(super) type Finalizers = Board<PolicyKey, bool>;

pub(super) fn stands_on(meta: &ObjectMeta) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// What became of a finalizer that was to be put on a policy, or taken from it.
enum Patched {
    Done,
    /// The policy is gone.
    Gone,
    Failed(String),
}

impl StatusWriter {
    /// Brings the finalizer to what a report asks for. `false` where that is to be tried again.
    pub(super) async fn settle_finalizer(
        &self,
        key: &PolicyKey,
        uid: &str,
        report: &PolicyReport,
    ) -> bool {
        let wanted = !report.memory.holdings.is_empty();
        let known = self.finalizers.get(key).filter(|known| known.uid == uid);
        if known.is_some_and(|known| known.status == wanted) {
            return true;
        }
        if !self.leadership.is_leader() {
            return false;
        }
        if let State::Leaving(Some(abandoned)) = &report.state {
            let note = note(abandoned);
            warn!(policy = %key, "{note}");
            self.publish(key, uid, &not_cleared(note)).await;
        }
        let api: Api<DeserializeGuard<TailscaleDevicePolicy>> =
            Api::namespaced(self.client.clone(), &key.namespace);
        let patched = async {
            if wanted {
                put(&api, &key.name, uid).await
            } else {
                take(&api, &key.name, uid).await
            }
        };
        let fault = match timeout(API_SERVER, patched).await {
            Ok(Patched::Done) => {
                self.finalizers.wrote(key, uid, wanted);
                return true;
            }
            Ok(Patched::Gone) => return true,
            Ok(Patched::Failed(fault)) => fault,
            Err(_) => "no answer in time".to_owned(),
        };
        let act = if wanted { "put on" } else { "taken from" };
        warn!(policy = %key, "the finalizer {FINALIZER} could not be {act} the policy: {fault}; trying again");
        false
    }
}

type Policies = Api<DeserializeGuard<TailscaleDevicePolicy>>;

async fn put(api: &Policies, name: &str, uid: &str) -> Patched {
    let patch = Patch::Apply(json!({
        "apiVersion": TailscaleDevicePolicy::api_version(&()),
        "kind": TailscaleDevicePolicy::kind(&()),
        // Refused should another object of the name have taken the place of this one.
        "metadata": {"name": name, "uid": uid, "finalizers": [FINALIZER]},
    }));
    let params = PatchParams::apply(FINALIZER_MANAGER);
    match api.patch(name, &params, &patch).await {
        Ok(_) => Patched::Done,
        // Also where the policy is gone, or goes already and takes no new finalizer: nothing may be
        // sent for it without one. The watch soon tells that it is gone.
        Err(error) => Patched::Failed(error.to_string()),
    }
}

/// Takes away what is there by now and nothing that was added meanwhile: the API server refuses the
/// patch if the object has changed since it was read.
async fn take(api: &Policies, name: &str, uid: &str) -> Patched {
    let object = match api.get_opt(name).await {
        Ok(Some(object)) if object.meta().uid.as_deref() == Some(uid) => object,
        Ok(_) => return Patched::Gone,
        Err(error) => return Patched::Failed(error.to_string()),
    };
    if !stands_on(object.meta()) {
        return Patched::Done;
    }
    let others = object.meta().finalizers.iter().flatten();
    let others: Vec<_> = others.filter(|other| *other != FINALIZER).collect();
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": object.meta().resource_version, "finalizers": others},
    }));
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch(name, &params, &patch).await {
        Ok(_) => Patched::Done,
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Patched::Gone,
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

/// What stays, where, and why.
fn note(abandoned: &Abandoned) -> String {
    let mut devices = abandoned.devices.join(", ");
    let more = abandoned.total.saturating_sub(abandoned.devices.len());
    if more > 0 {
        devices = format!("{devices} and {more} more");
    }
    let keys = abandoned.belongings.keys.iter().map(ToString::to_string);
    let routes = abandoned.belongings.routes.iter().map(ToString::to_string);
    let what = keys.chain(routes).collect::<Vec<_>>().join(", ");
    let keep = if abandoned.total == 1 {
        "keeps"
    } else {
        "keep"
    };
    bounded(format!(
        "{devices} {keep} what the policy put there ({what}): {}",
        abandoned.why
    ))
}
