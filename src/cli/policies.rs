//! The policies that a command is about: those of files, or those of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{AnyError, cluster::ClusterArgs, guardrails::DeclaredGuardrails, manifests};
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet, TailscaleTailnetSpec},
    controller,
    model::ChangeLimit,
    plan::{Labels, PolicyInput, PolicyKey},
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
    /// The controller's own namespace: where the `TailscaleTailnet` has no allowedPolicies, only policies
    /// of this one are allowed.
    #[arg(long, value_name = "NAMESPACE", default_value = controller::DEFAULT_NAMESPACE)]
    controller_namespace: String,
    /// Only the policies of this `TailscaleTailnet`. Needed where they belong to several.
    #[arg(long, value_name = "NAME")]
    tailnet_ref: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl PoliciesArgs {
    /// Whether any policies are named.
    pub fn are_given(&self) -> bool {
        self.from_cluster || !self.files.is_empty()
    }

    /// The namespace of manifests that name none.
    pub fn default_namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Whether a policy is not left out by `--tailnet-ref`.
    pub fn concerns(&self, policy: &TailscaleDevicePolicy) -> bool {
        let wanted = self.tailnet_ref.as_ref();
        wanted.is_none_or(|wanted| wanted == policy.spec.tailnet_name())
    }

    /// Reads them, and the tailnet that they belong to.
    pub async fn read(&self) -> Result<Declarations, AnyError> {
        let all = if self.from_cluster {
            self.of_cluster().await?
        } else {
            let manifests = manifests::load(&self.files, self.default_namespace())?;
            let policies = manifests.policies.into_iter();
            let policies = policies.map(|located| DeserializeGuard(Ok(located.object)));
            let tailnets = manifests.tailnets.into_iter();
            All {
                policies: policies.collect(),
                tailnets: tailnets.map(|located| located.object).collect(),
                namespaces: manifests.namespaces,
            }
        };
        self.of_one_tailnet(all)
    }

    async fn of_cluster(&self) -> Result<All, AnyError> {
        let client = self.cluster.client().await?;
        let policies: Api<DeserializeGuard<TailscaleDevicePolicy>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let tailnets: Api<TailscaleTailnet> = Api::all(client.clone());
        let namespaces: Api<Namespace> = Api::all(client);
        let (all, what) = (ListParams::default(), "of the cluster cannot be listed");
        let listed = policies.list(&all).await;
        let policies = listed.map_err(|error| format!("the policies {what}: {error}"))?;
        let listed = tailnets.list(&all).await;
        let tailnets = listed.map_err(|error| format!("the tailnets {what}: {error}"))?;
        // Not everybody may list namespaces, and few rules go by their labels.
        let mut labels: BTreeMap<String, Labels> = BTreeMap::new();
        if tailnets.items.iter().any(|it| it.spec.goes_by_labels()) {
            let listed = namespaces.list(&all).await;
            let listed = listed.map_err(|error| format!("the namespaces {what}: {error}"))?;
            labels.extend(listed.items.into_iter().map(|namespace| {
                let name = namespace.name_any();
                (name, namespace.metadata.labels.unwrap_or_default())
            }));
        }
        Ok(All {
            policies: policies.items,
            tailnets: tailnets.items,
            namespaces: labels,
        })
    }

    fn of_one_tailnet(&self, mut all: All) -> Result<Declarations, AnyError> {
        // One that cannot be read may belong to any.
        let tailnet = |object: &PolicyObject| {
            let policy = object.0.as_ref().ok()?;
            Some(policy.spec.tailnet_name().to_owned())
        };
        let wanted = if let Some(wanted) = &self.tailnet_ref {
            all.policies
                .retain(|object| tailnet(object).is_none_or(|name| name == *wanted));
            Some(wanted.clone())
        } else {
            let mut named: BTreeSet<String> = all.policies.iter().filter_map(tailnet).collect();
            if named.len() > 1 {
                let several: Vec<_> = named.into_iter().collect();
                let several = several.join(", ");
                return Err(format!(
                    "the policies belong to several tailnets ({several}), and this is a connection to \
                     one: choose its policies with --tailnet-ref NAME"
                )
                .into());
            }
            named.pop_first()
        };
        let mut tailnets = all.tailnets.into_iter();
        let tailnet = tailnets.find(|tailnet| Some(tailnet.name_any()) == wanted);
        let tailnet = tailnet.map(|tailnet| tailnet.spec);
        let own = &self.controller_namespace;
        let guards = DeclaredGuardrails::new(tailnet.as_ref(), own, all.namespaces);
        Ok(Declarations {
            policies: all.policies,
            tailnet,
            guards,
        })
    }
}

/// A policy, or one that cannot be read.
pub(super) type PolicyObject = DeserializeGuard<TailscaleDevicePolicy>;

/// Everything that was read.
struct All {
    policies: Vec<PolicyObject>,
    tailnets: Vec<TailscaleTailnet>,
    namespaces: BTreeMap<String, Labels>,
}

/// What is declared for one tailnet.
#[derive(Debug)]
pub(super) struct Declarations {
    /// Its policies.
    pub policies: Vec<PolicyObject>,
    /// The tailnet itself, where it is among what was read.
    pub tailnet: Option<TailscaleTailnetSpec>,
    /// What it permits; where it is not among what was read, nobody has declared anything.
    pub guards: DeclaredGuardrails,
}

impl Declarations {
    /// How many devices may be changed: as the tailnet says, else the default.
    pub fn limit(&self) -> Result<ChangeLimit, String> {
        let Some(tailnet) = &self.tailnet else {
            return Ok(ChangeLimit::default());
        };
        let limit = tailnet.max_changed_devices();
        limit.map_err(|refused| format!("maxChangedDevices of the TailscaleTailnet: {refused}"))
    }
}

/// The policies as the plan takes them.
pub(super) fn declared(objects: &[PolicyObject]) -> Vec<PolicyInput> {
    let key = |object: &PolicyObject| PolicyKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    };
    objects
        .iter()
        .map(|object| controller::policy_input(&key(object), object, Duration::ZERO))
        .collect()
}
