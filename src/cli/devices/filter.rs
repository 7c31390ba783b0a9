//! Which of the devices are listed: those that nothing manages, that one policy manages, or that have drifted.

use std::collections::BTreeSet;

use clap::Args;

use super::view::View;
use crate::{
    cli::{plan::PlanRun, policies::Declarations, process::AnyError, prune_from::PruneFrom},
    model::NodeId,
    plan::PolicyInput,
    tailscale::Client,
};

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    /// It would list every device, or none.
    #[error("{0} needs policies. Add -f and a file or folder, or --from-cluster")]
    WithoutPolicies(&'static str),
    /// No policy has this name.
    #[error("--managed-by {0}: there is no such policy. Write its name, or NAMESPACE/NAME")]
    UnknownPolicy(String),
}

/// Filters that need policies.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "filter", multiple = true)]
pub(super) struct FilterArgs {
    /// Only devices that no policy targets.
    #[arg(long, conflicts_with_all = ["managed_by", "drifted"])]
    unmanaged: bool,
    /// Only devices that this policy targets: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "POLICY")]
    managed_by: Option<String>,
    /// Only devices that differ from what their policies declare. Reads posture attributes where policies
    /// declare some.
    #[arg(long)]
    drifted: bool,
}

impl FilterArgs {
    /// Refuses a filter without policies.
    pub fn refuse_without_policies(&self, are_given: bool) -> Result<(), FilterError> {
        let flag = match self {
            _ if are_given => return Ok(()),
            Self {
                unmanaged: true, ..
            } => "--unmanaged",
            Self {
                managed_by: Some(_),
                ..
            } => "--managed-by",
            Self { drifted: true, .. } => "--drifted",
            Self { .. } => return Ok(()),
        };
        Err(FilterError::WithoutPolicies(flag))
    }

    pub const fn drifted(&self) -> bool {
        self.drifted
    }

    /// The keys of the policies that `--managed-by` names.
    pub fn managers(
        &self,
        policies: &[PolicyInput],
    ) -> Result<Option<BTreeSet<String>>, FilterError> {
        let Some(wanted) = &self.managed_by else {
            return Ok(None);
        };
        let keys = policies
            .iter()
            .filter(|it| it.key.name == *wanted || it.key.to_string() == *wanted);
        let keys: BTreeSet<String> = keys.map(|it| it.key.to_string()).collect();
        if keys.is_empty() {
            return Err(FilterError::UnknownPolicy(wanted.clone()));
        }
        Ok(Some(keys))
    }

    /// Whether a device passes.
    pub fn passes(
        &self,
        view: &View<'_>,
        managers: Option<&BTreeSet<String>>,
        drifted: Option<&BTreeSet<NodeId>>,
    ) -> bool {
        let managed_by = view.managed_by.as_deref().unwrap_or_default();
        // A policy never targets a device that is shared in.
        !(self.unmanaged && (view.external || !managed_by.is_empty()))
            && managers.is_none_or(|keys| managed_by.iter().any(|key| keys.contains(key)))
            && drifted.is_none_or(|drifted| drifted.contains(view.node_id))
    }
}

/// Plans, and returns the devices with a difference.
pub(super) async fn plan(
    client: &Client,
    declarations: Declarations,
) -> Result<(PlanRun, BTreeSet<NodeId>), AnyError> {
    let limit = declarations.limit()?;
    let guardrails = declarations.guardrails.read()?;
    let earlier = PruneFrom::default();
    let run = PlanRun::make(client, declarations.policies, guardrails, &earlier, limit).await?;
    let drifted = run.tailnet_plan.devices.iter().filter(|(_, plan)| {
        let mut all = plan.differences.iter().chain(&plan.shown);
        // What could not be read is named on stderr.
        all.any(|difference| !difference.is_unknown())
    });
    let drifted = drifted.map(|(id, _)| id.clone()).collect();
    Ok((run, drifted))
}
