//! What manifests said at an earlier time. The controller records in the status of a policy which
//! attributes it owns on which devices; files record nothing, but somebody may have kept their former
//! state.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::{
    AnyError, git,
    manifests::{self, Diagnostics, Severity},
    policies::{PoliciesArgs, PolicyObject},
};
use crate::{
    api::{self, TailscaleDevicePolicy, TailscaleDevicePolicySpec},
    plan::{
        self, Admission, DeviceIndex, OwnedKeys, PolicyInput, PolicyKey, PolicyRecord, plan_tailnet,
    },
};

/// Where the former state of the manifests is.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PruneFromArgs {
    /// Delete the attributes that a policy declared there and no longer declares, on the devices that it
    /// targeted there: a file or folder with the former manifests, or a git revision of the files of -f,
    /// such as HEAD~1.
    #[arg(long, value_name = "PATH|REVISION", conflicts_with = "from_cluster")]
    prune_from: Option<String>,
}

/// What the policies of an earlier time declared, by `namespace/name`: those of the same tailnet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PruneFrom(BTreeMap<String, TailscaleDevicePolicySpec>);

impl PruneFromArgs {
    /// Reads the former state, and says on stderr what of it is not acted on.
    pub fn read(&self, args: &PoliciesArgs, now: &[PolicyObject]) -> Result<PruneFrom, AnyError> {
        let Some(from) = &self.prune_from else {
            return Ok(PruneFrom::default());
        };
        let namespace = args.default_namespace();
        let (read, diagnostics) = if Path::new(from).exists() {
            manifests::read(&[PathBuf::from(from)], namespace)
        } else {
            let sources = git::sources_at(from, &args.files)
                .map_err(|error| format!("--prune-from {from}: no such file, and {error}"))?;
            manifests::read_sources(&sources, namespace, Vec::new())
        };
        if diagnostics.iter().any(|it| it.severity == Severity::Error) {
            let diagnostics = Diagnostics(diagnostics);
            return Err(
                format!("the former manifests of --prune-from {from}: {diagnostics}").into(),
            );
        }
        let then = read.policies.into_iter().map(|located| located.object);
        let then: Vec<TailscaleDevicePolicy> = then.filter(|it| args.concerns(it)).collect();
        report_gone(&then, now);
        let then = then
            .into_iter()
            .filter(|then| is_of_the_same_tailnet(then, now));
        let specs = then.map(|then| (called(&then), then.spec));
        Ok(PruneFrom(specs.collect()))
    }
}

fn called(policy: &impl ResourceExt) -> String {
    format!(
        "{}/{}",
        policy.namespace().unwrap_or_default(),
        policy.name_any()
    )
}

/// In another tailnet the policy has set nothing: it stays in the former one.
fn is_of_the_same_tailnet(then: &TailscaleDevicePolicy, now: &[PolicyObject]) -> bool {
    let called_so = called(then);
    let mut now = now.iter().filter_map(|object| object.0.as_ref().ok());
    let Some(now) = now.find(|now| called(*now) == called_so) else {
        return true;
    };
    let (before, after) = (then.spec.tailnet_name(), now.spec.tailnet_name());
    if before != after && then.spec.posture_attributes.is_some() {
        eprintln!(
            "tsdp: {called_so} had the tailnetRef {before} and has {after} now; the attributes that it has set \
             in the former tailnet stay as they are"
        );
    }
    before == after
}

/// What a policy that is gone has put on devices stays, as under `Retain`: which devices it held under
/// `Clear` is known to the controller alone.
fn report_gone(then: &[TailscaleDevicePolicy], now: &[PolicyObject]) {
    let is_gone =
        |then: &&TailscaleDevicePolicy| !now.iter().any(|now| called(now) == called(*then));
    let clears = |then: &TailscaleDevicePolicy| {
        then.spec.deletion_policy == Some(api::DeletionPolicy::Clear)
    };
    let leaves =
        |then: &&TailscaleDevicePolicy| clears(then) || then.spec.posture_attributes.is_some();
    for policy in then.iter().filter(is_gone).filter(leaves) {
        eprintln!(
            "tsdp: {} is gone since; what it has set stays as it is{}",
            called(policy),
            if clears(policy) {
                ": deletionPolicy Clear is carried out by the controller alone"
            } else {
                ""
            }
        );
    }
}

impl PruneFrom {
    /// Whether nothing is known of an earlier time.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives policies the record that their status would have: of the keys that they declared, on the
    /// devices that they targeted then. The devices are compared as they are now.
    pub fn remind(&self, policies: &mut [PolicyInput], fleet: &DeviceIndex, now: Timestamp) {
        let then: Vec<PolicyInput> = policies
            .iter()
            .filter_map(|declared| {
                let spec = self.0.get(&declared.key.to_string())?;
                let then = plan::parse(
                    declared.key.clone(),
                    String::new(),
                    0,
                    Timestamp::UNIX_EPOCH,
                    spec,
                    None,
                );
                Some(PolicyInput {
                    approvals: declared.approvals.clone(),
                    ..then
                })
            })
            .collect();
        let then = plan_tailnet(&then, &Admission::default(), fleet, &BTreeMap::new(), now);
        let mut owned: BTreeMap<PolicyKey, OwnedKeys> = BTreeMap::new();
        for (node, plan) in &then.devices {
            for (policy, keys) in plan.owners.declared_keys() {
                owned.entry(policy).or_default().add(node, keys);
            }
        }
        for declared in policies {
            if self.0.contains_key(&declared.key.to_string()) {
                declared.record = PolicyRecord {
                    owned: Arc::new(owned.remove(&declared.key).unwrap_or_default()),
                    ..PolicyRecord::default()
                };
            }
        }
    }
}
