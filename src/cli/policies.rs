//! The policies that a command reads, from files or from a cluster.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, api::ListParams};

use super::{
    cluster::ClusterArgs, guardrails::DeclaredGuardrails, manifests, process::AnyError,
    server_error,
};
use crate::model::Refused;
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet, TailscaleTailnetSpec},
    controller,
    model::ChangeLimit,
    plan::{Labels, PolicyInput, PolicyKey},
};

/// The source of the policies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policies")]
pub(super) struct PoliciesArgs {
    /// Manifests: a file, a folder with its subfolders, or - for standard input. May be repeated. The
    /// command ignores objects of other kinds.
    #[arg(long = "filename", short = 'f', value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Read the policies from a cluster, with the records in their status.
    #[arg(long, conflicts_with = "files")]
    pub from_cluster: bool,
    /// The namespace of manifests that do not name one. With --from-cluster: the only namespace to read
    /// [default: "default"; with --from-cluster: all].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The controller's own namespace. A TailscaleTailnet without allowedPolicies allows only policies in
    /// this namespace.
    #[arg(hide_short_help = true, long, value_name = "NAMESPACE", default_value = controller::DEFAULT_NAMESPACE)]
    controller_namespace: String,
    /// Use only the policies of this TailscaleTailnet. Required if the policies refer to more than one.
    #[arg(hide_short_help = true, long, value_name = "NAME")]
    tailnet_ref: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The file that the command writes: no manifest, although it may be in a folder of them.
    #[arg(skip)]
    pub written: Option<PathBuf>,
}

/// Flags that choose a cluster, where no policies are read from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "--kubeconfig and --context need --from-cluster. Replace -f with --from-cluster, or remove these flags"
)]
pub(super) struct UnusedClusterFlags;

impl PoliciesArgs {
    /// Whether the arguments name any policies.
    pub fn are_given(&self) -> bool {
        self.from_cluster || !self.files.is_empty()
    }

    /// Refuses flags that choose a cluster if no policies are read from one.
    pub fn refuse_unused_flags(&self) -> Result<(), UnusedClusterFlags> {
        if self.from_cluster || !self.cluster.is_given() {
            return Ok(());
        }
        Err(UnusedClusterFlags)
    }

    /// Whether arguments beside the paths choose or place the policies.
    pub fn narrow(&self) -> bool {
        self.namespace.is_some()
            || self.tailnet_ref.is_some()
            || self.controller_namespace != controller::DEFAULT_NAMESPACE
    }

    /// Where the policies come from, for messages.
    pub fn source(&self) -> String {
        let place = match (&self.namespace, self.from_cluster) {
            (Some(namespace), true) => format!("the namespace {namespace} of the cluster"),
            (None, true) => "the cluster".to_owned(),
            (_, false) => {
                let files = self.files.iter().map(|path| path.display().to_string());
                files.collect::<Vec<_>>().join(", ")
            }
        };
        match &self.tailnet_ref {
            Some(tailnet) => format!("{place} for the TailscaleTailnet {tailnet}"),
            None => place,
        }
    }

    /// The namespace of manifests that name none.
    pub fn default_namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// Whether `--tailnet-ref` includes a policy.
    pub fn includes(&self, policy: &TailscaleDevicePolicy) -> bool {
        let wanted = self.tailnet_ref.as_ref();
        wanted.is_none_or(|wanted| wanted == policy.spec.tailnet_name())
    }

    /// Reads the policies, and the tailnet that they belong to.
    pub async fn read(&self) -> Result<Declarations, AnyError> {
        self.refuse_unused_flags()?;
        let all = if self.from_cluster {
            self.of_cluster().await?
        } else {
            let manifests = manifests::load(
                &self.files,
                self.written.as_deref(),
                self.default_namespace(),
            )?;
            All {
                policies: manifests
                    .policies
                    .into_iter()
                    .map(|loaded| (DeserializeGuard(Ok(loaded.object)), loaded.input))
                    .collect(),
                tailnets: manifests
                    .tailnets
                    .into_iter()
                    .map(|located| DeserializeGuard(Ok(located.object)))
                    .collect(),
                namespaces: manifests.namespaces,
            }
        };
        self.of_one_tailnet(all)
    }

    async fn of_cluster(&self) -> Result<All, AnyError> {
        let client = self.cluster.client().await?;
        // Guarded: one object that cannot be parsed must not fail the whole list.
        let policies: Api<DeserializeGuard<TailscaleDevicePolicy>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let tailnets: Api<DeserializeGuard<TailscaleTailnet>> = Api::all(client.clone());
        let namespaces: Api<Namespace> = Api::all(client);
        let all = ListParams::default();
        let policies = policies.list(&all).await.map_err(server_error::of)?;
        let tailnets = tailnets.list(&all).await.map_err(server_error::of)?;
        // Only if needed: not every user may list namespaces, and few rules select by their labels.
        let mut labels: BTreeMap<String, Labels> = BTreeMap::new();
        let mut readable = tailnets.items.iter().filter_map(|it| it.0.as_ref().ok());
        if readable.any(|it| it.spec.goes_by_labels()) {
            let listed = namespaces.list(&all).await.map_err(server_error::of)?;
            labels.extend(listed.items.into_iter().map(|namespace| {
                let name = namespace.name_any();
                (name, namespace.metadata.labels.unwrap_or_default())
            }));
        }
        let policies = policies.items.into_iter();
        Ok(All {
            policies: policies
                .map(|object| {
                    let input = input(&object);
                    (object, input)
                })
                .collect(),
            tailnets: tailnets.items,
            namespaces: labels,
        })
    }

    fn of_one_tailnet(&self, mut all: All) -> Result<Declarations, AnyError> {
        // A policy that cannot be parsed may belong to any tailnet: it stays in, and is reported.
        let tailnet = |object: &PolicyObject| {
            let policy = object.0.as_ref().ok()?;
            Some(policy.spec.tailnet_name().to_owned())
        };
        let objects = all.policies.iter().map(|(object, _)| object);
        let mut named: BTreeSet<String> = objects.filter_map(tailnet).collect();
        let wanted = if let Some(wanted) = &self.tailnet_ref {
            let is_declared = all.tailnets.iter().any(|it| it.name_any() == *wanted);
            // Else a misspelled name would look like a tailnet in sync.
            if !is_declared && !named.is_empty() && !named.contains(wanted) {
                let named = named.into_iter().collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "--tailnet-ref {wanted}: no policy belongs to this TailscaleTailnet, only to {named}. Correct \
                     the name"
                )
                .into());
            }
            all.policies
                .retain(|(object, _)| tailnet(object).is_none_or(|name| name == *wanted));
            Some(wanted.clone())
        } else {
            if named.len() > 1 {
                let several = named.into_iter().collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "found policies of several tailnets ({several}), expected one, as this is a connection to \
                     one tailnet. Choose its policies with --tailnet-ref NAME"
                )
                .into());
            }
            named.pop_first()
        };
        let tailnet = all
            .tailnets
            .into_iter()
            .find(|tailnet| Some(tailnet.name_any()) == wanted)
            .map(|tailnet| match tailnet.0 {
                Ok(tailnet) => Ok(tailnet.spec),
                // Its guardrails are unknown, and none would be too few.
                Err(unreadable) => Err(format!(
                    "the TailscaleTailnet {} cannot be parsed: {}. Correct it",
                    unreadable.metadata.name.unwrap_or_default(),
                    unreadable.error
                )),
            })
            .transpose()?;
        let own = &self.controller_namespace;
        // Of the one tailnet: rules of another one say nothing about this connection.
        let guardrails = DeclaredGuardrails::new(tailnet.as_ref(), own, all.namespaces);
        let (objects, policies) = all.policies.into_iter().unzip();
        Ok(Declarations {
            objects,
            policies,
            tailnet,
            guardrails,
        })
    }
}

/// A policy, or one that cannot be parsed.
pub(super) type PolicyObject = DeserializeGuard<TailscaleDevicePolicy>;

/// Everything that was read.
struct All {
    /// Each policy, and what it is for the planner.
    policies: Vec<(PolicyObject, PolicyInput)>,
    tailnets: Vec<DeserializeGuard<TailscaleTailnet>>,
    namespaces: BTreeMap<String, Labels>,
}

/// The objects of one tailnet.
#[derive(Debug)]
pub(super) struct Declarations {
    /// Its policies as objects.
    pub objects: Vec<PolicyObject>,
    /// The same policies as the planner takes them.
    pub policies: Vec<PolicyInput>,
    /// The tailnet itself, if it was among the objects.
    pub tailnet: Option<TailscaleTailnetSpec>,
    /// The guardrails of the tailnet. Without the tailnet itself there are none.
    pub guardrails: DeclaredGuardrails,
}

impl Declarations {
    /// The maximum number of changed devices: that of the tailnet, else the default.
    pub fn limit(&self) -> Result<ChangeLimit, InvalidLimit> {
        let Some(tailnet) = &self.tailnet else {
            return Ok(ChangeLimit::default());
        };
        let limit = tailnet.max_changed_devices();
        limit.map_err(InvalidLimit)
    }
}

/// The limit of a tailnet is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("maxChangedDevices of the TailscaleTailnet: {0}")]
pub(super) struct InvalidLimit(Refused);

/// A policy of the cluster as the planner takes it.
fn input(object: &PolicyObject) -> PolicyInput {
    let key = PolicyKey::new(object.namespace().unwrap_or_default(), object.name_any());
    // Only the controller cleans up after a deleted policy, so the timeout does not matter.
    controller::policy_input(&key, object, Duration::ZERO)
}
