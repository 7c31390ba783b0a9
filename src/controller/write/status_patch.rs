//! Writes a status only over the exact version that it was derived from.
//!
//! A write replaces the whole status. The API server refuses the patch if the object has changed
//! since: a patch that was delayed, and arrives after another leader has written, never removes the
//! record of that leader.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{error::Elapsed, timeout};
use tracing::{debug, warn};

use super::api_server::{MANAGER, MAX_WAIT, not_permitted, unwritable};
use crate::controller::{
    serve::metrics::{Metrics, StatusFailure},
    watch::readiness::Readiness,
};

/// The version of the object to write to.
#[derive(Debug, Clone, Copy)]
pub(in crate::controller) struct Target<'a> {
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Excludes a later object of the name.
    pub uid: &'a str,
    /// Its resourceVersion: no other version.
    pub at: &'a str,
}

/// Why a status was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::controller) enum NotWritten {
    /// The object is gone, or another process must write it now.
    Gone,
    /// The object has changed since it was read, or another object of its name has replaced it.
    Outdated,
    /// The write failed; a later one may succeed.
    Failed,
}

/// The part of a status to write.
#[derive(Debug, Clone, Copy)]
pub(in crate::controller) enum Part<'a, S> {
    /// All of it.
    Whole(&'a S),
    /// The conditions, and the generation that they describe.
    Conditions(&'a [Condition], i64),
}

impl<S: Serialize> Part<'_, S> {
    /// As the operations of a JSON patch.
    fn operations(&self) -> Vec<Value> {
        let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
        match self {
            Self::Whole(status) => vec![add("/status", json!(status))],
            Self::Conditions(conditions, generation) => vec![
                add("/status/conditions", json!(conditions)),
                add("/status/observedGeneration", json!(generation)),
            ],
        }
    }
}

/// Writes the status of an object and returns the new version of the object; bounded in time. The
/// caller must lead.
pub(in crate::controller) async fn write_status<K, S>(
    api: &Api<K>,
    over: Target<'_>,
    part: Part<'_, S>,
    (metrics, readiness): (&Metrics, &Readiness),
) -> Result<String, NotWritten>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    let (kind, name) = (K::kind(&()), over.name);
    let what = unwritable(&format!("the status of {kind}"), over.namespace);
    let Ok(patch) = patch_of(&part, over.at) else {
        warn!("the status of {kind} {name} cannot be serialized to JSON");
        return Err(NotWritten::Failed);
    };
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let answer = timeout(MAX_WAIT, api.patch_status(name, &params, &patch)).await;
    if let Some(failure) = failure(&answer) {
        metrics.status_not_written(failure);
    }
    match answer {
        Ok(Ok(written)) => {
            metrics.status_written();
            readiness.tried(&what, Ok(()));
            Ok(written.meta().resource_version.clone().unwrap_or_default())
        }
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() => Err(NotWritten::Gone),
        Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() => {
            debug!("the {kind} {name} has changed since it was read");
            Err(NotWritten::Outdated)
        }
        Ok(Err(kube::Error::Api(answer))) if answer.is_forbidden() => {
            // A missing permission concerns all objects, so the controller is not ready. Other
            // failures concern this one.
            let why = not_permitted(&answer.message);
            if readiness.tried(&what, Err(&why)) {
                warn!("{what}: {why}; retrying");
            }
            Err(NotWritten::Failed)
        }
        Ok(Err(error)) => {
            warn!("the status of {kind} {name} was not written: {error}; retrying");
            Err(NotWritten::Failed)
        }
        Err(_) => {
            warn!("the status of {kind} {name} was not written in time; retrying");
            Err(NotWritten::Failed)
        }
    }
}

/// Whatever the reason, so that an alert on the metric misses none.
fn failure<T>(answer: &Result<kube::Result<T>, Elapsed>) -> Option<StatusFailure> {
    match answer {
        Ok(Ok(_)) => None,
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() => Some(StatusFailure::NotFound),
        Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() => Some(StatusFailure::Conflict),
        Ok(Err(kube::Error::Api(answer))) if answer.is_forbidden() => {
            Some(StatusFailure::Forbidden)
        }
        Ok(Err(_)) => Some(StatusFailure::Failed),
        Err(_) => Some(StatusFailure::Timeout),
    }
}

/// Not a server-side apply, which keeps the fields that others have added. The API server refuses the patch if
/// `at` is not the stored version, also of a later object of the same name.
fn patch_of<S: Serialize>(part: &Part<'_, S>, at: &str) -> serde_json::Result<Patch<()>> {
    let same = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": at});
    let operations = std::iter::once(same).chain(part.operations());
    serde_json::from_value(operations.collect()).map(Patch::Json)
}
