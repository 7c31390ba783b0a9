//! The policies that a command is about: those of files, or those of a cluster.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::DeserializeGuard};

use super::{AnyError, manifests};
use crate::{
    api::TailscaleDevicePolicy,
    controller,
    plan::{Declared, PolicyKey},
};

/// Where policies come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policies")]
pub(super) struct PoliciesArgs {
    /// Manifests: a file, a folder with all that is in it, or - for the standard input. May be
    /// repeated. Objects of other kinds are left alone.
    #[arg(long = "filename", short = 'f', value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// The policies of the cluster that KUBECONFIG names, with what their status remembers.
    #[arg(long, conflicts_with = "files")]
    pub from_cluster: bool,
    /// The namespace of manifests that name none; with --from-cluster the only one that is read
    /// [default: "default"; with --from-cluster all].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only the policies of this `TailscaleTailnet`. Needed where they belong to several.
    #[arg(long, value_name = "NAME")]
    tailnet_ref: Option<String>,
}

impl PoliciesArgs {
    /// Whether any policies are named.
    pub fn are_given(&self) -> bool {
        self.from_cluster || !self.files.is_empty()
    }

    /// The policies as objects, all of one tailnet.
    pub async fn objects(&self) -> Result<Vec<DeserializeGuard<TailscaleDevicePolicy>>, AnyError> {
        let objects = if self.from_cluster {
            self.of_cluster().await?
        } else {
            let namespace = self.namespace.as_deref().unwrap_or("default");
            let manifests = manifests::load(&self.files, namespace)?;
            let policies = manifests.policies.into_iter();
            policies
                .map(|located| DeserializeGuard(Ok(located.object)))
                .collect()
        };
        self.of_one_tailnet(objects)
    }

    async fn of_cluster(&self) -> Result<Vec<DeserializeGuard<TailscaleDevicePolicy>>, AnyError> {
        let client = Client::try_from(controller::cluster().await?)?;
        let api: Api<DeserializeGuard<TailscaleDevicePolicy>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let list = api.list(&ListParams::default()).await;
        Ok(list
            .map_err(|error| format!("cannot list the policies of the cluster: {error}"))?
            .items)
    }

    fn of_one_tailnet(
        &self,
        mut objects: Vec<DeserializeGuard<TailscaleDevicePolicy>>,
    ) -> Result<Vec<DeserializeGuard<TailscaleDevicePolicy>>, AnyError> {
        // One that cannot be read may belong to any.
        let tailnet = |object: &DeserializeGuard<TailscaleDevicePolicy>| {
            let policy = object.0.as_ref().ok()?;
            Some(policy.spec.tailnet_name().to_owned())
        };
        if let Some(wanted) = &self.tailnet_ref {
            objects.retain(|object| tailnet(object).is_none_or(|name| name == *wanted));
            return Ok(objects);
        }
        let tailnets: BTreeSet<String> = objects.iter().filter_map(tailnet).collect();
        if tailnets.len() > 1 {
            let names: Vec<_> = tailnets.into_iter().collect();
            let names = names.join(", ");
            return Err(format!(
                "the policies belong to several tailnets ({names}), and this is a connection to one: \
                 choose its policies with --tailnet-ref NAME"
            )
            .into());
        }
        Ok(objects)
    }
}

/// The policies as the plan takes them.
pub(super) fn declared(objects: &[DeserializeGuard<TailscaleDevicePolicy>]) -> Vec<Declared> {
    let key = |object: &DeserializeGuard<TailscaleDevicePolicy>| PolicyKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    };
    objects
        .iter()
        .map(|object| controller::declared(&key(object), object))
        .collect()
}
