//! What may be missing without failing `plan` and `apply`: a pipeline trusts their exit codes.

use clap::Args;

use super::policies::PoliciesArgs;
use crate::{
    model::counted,
    plan::{Binding, PolicyInput, PolicyKey, TailnetPlan, Target},
};

/// The maximum number of policies that the message about missing devices names.
const MAX_NAMED: usize = 20;

/// What may be missing.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct AllowArgs {
    /// Do not fail if the device of a policy is not found, ambiguous, or unreadable.
    #[arg(hide_short_help = true, long)]
    allow_missing: bool,
    /// Do not fail if there is no policy, for example in an empty folder.
    #[arg(hide_short_help = true, long)]
    allow_empty: bool,
}

/// No policy where some are expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NothingFound {
    /// Nothing to plan.
    #[error(
        "found no policy in {0}. Correct the arguments, or add --allow-empty if there may be none"
    )]
    Policies(String),
    /// Nothing to prune.
    #[error(
        "--prune-from {0}: found no earlier policy. Name the former folder, or add --allow-empty if there was none"
    )]
    Earlier(String),
}

impl AllowArgs {
    /// Whether there may be no policy, for commands that need no device.
    pub fn empty(allow_empty: bool) -> Self {
        Self {
            allow_missing: false,
            allow_empty,
        }
    }

    /// Refuses an empty set of policies. A wrong path must not look like a tailnet in sync.
    pub fn refuse_empty(
        self,
        policies: &[PolicyInput],
        from: &PoliciesArgs,
    ) -> Result<(), NothingFound> {
        if self.allow_empty || !policies.is_empty() {
            return Ok(());
        }
        Err(NothingFound::Policies(from.source()))
    }

    /// Refuses earlier manifests without any object: nothing would be released then.
    pub fn refuse_nothing_earlier(self, from: &str, objects: usize) -> Result<(), NothingFound> {
        if self.allow_empty || objects > 0 {
            return Ok(());
        }
        Err(NothingFound::Earlier(from.to_owned()))
    }

    /// Names on stderr the policies that have no device, and returns whether they fail the command.
    pub fn report_missing(self, policies: &[PolicyInput], tailnet_plan: &TailnetPlan) -> bool {
        if self.allow_missing {
            return false;
        }
        let missing = without_device(policies, tailnet_plan);
        if missing.is_empty() {
            return false;
        }
        let named = missing.iter().take(MAX_NAMED).map(ToString::to_string);
        let more = match missing.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        eprintln!(
            "tsdp: found no device for {}: {}{more}. Correct spec.device, or add --allow-missing",
            counted(missing.len(), "policy"),
            named.collect::<Vec<_>>().join(", "),
        );
        true
    }
}

/// The allowed policies for one device that have none. A selector need not match anything.
fn without_device<'a>(
    policies: &'a [PolicyInput],
    tailnet_plan: &TailnetPlan,
) -> Vec<&'a PolicyKey> {
    let missing = policies.iter().filter(|declared| {
        let names_device =
            matches!(&declared.policy, Ok(policy) if matches!(policy.target, Target::Device(_)));
        let binding = tailnet_plan.bindings.get(&declared.key);
        names_device
            && !tailnet_plan.refused.contains_key(&declared.key)
            && binding.is_some_and(|binding| !matches!(binding, Binding::Device(_)))
    });
    missing.map(|declared| &declared.key).collect()
}
