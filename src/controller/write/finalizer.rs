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
};
use serde_json::json;

use super::{
    api_server::{MANAGER, not_permitted},
    status_patch::Target,
};
use crate::api::{DeserializeGuard, TailscaleDevicePolicy};

pub(super) const FINALIZER: &str = "tailnet.dev/clear";
/// A manager of its own, so that applying a status does not remove the finalizer.
const FINALIZER_MANAGER: &str = "tsdp-clear";

pub(in crate::controller) fn is_on(meta: &ObjectMeta) -> bool {
    let mut finalizers = meta.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

/// The outcome of adding or removing the finalizer.
pub(super) enum Patched {
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

type Policies = Api<DeserializeGuard<TailscaleDevicePolicy>>;

/// Adds the finalizer to this version of a policy.
pub(super) async fn add(api: &Policies, over: Target<'_>) -> Patched {
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

/// Removes the finalizer and nothing that was added meanwhile: the API server refuses the patch
/// if the object has changed since it was read. `read` receives the object as it was read.
pub(super) async fn remove(
    api: &Policies,
    name: &str,
    uid: &str,
    read: impl FnOnce(&DeserializeGuard<TailscaleDevicePolicy>),
) -> Patched {
    let object = match api.get_opt(name).await {
        // A later object of the name is not the one to release.
        Ok(Some(object)) if object.meta().uid.as_deref() == Some(uid) => object,
        Ok(_) => return Patched::Gone,
        Err(error) => return Patched::Failed(error.to_string()),
    };
    read(&object);
    let version = object.meta().resource_version.clone().unwrap_or_default();
    // Someone else has removed it, so there is nothing left to do.
    if !is_on(object.meta()) {
        return Patched::Done(version);
    }
    let others: Vec<_> = object
        .meta()
        .finalizers
        .iter()
        .flatten()
        .filter(|other| *other != FINALIZER)
        .collect();
    // A merge patch replaces the whole list, hence the other entries and the resourceVersion.
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": version, "finalizers": others},
    }));
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    patched(api.patch(name, &params, &patch).await)
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
