//! The earlier versions of manifests. The controller records in the status of a policy which attributes it
//! owns on which devices. Files have no status, but an earlier version of them gives the same record.

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
    git,
    manifests::{self, Diagnostics, Severity},
    policies::{PoliciesArgs, PolicyObject},
    process::AnyError,
};
use crate::{
    api::{self, TailscaleDevicePolicy, TailscaleDevicePolicySpec},
    convert,
    plan::{Admission, DeviceIndex, OwnedKeys, PolicyInput, PolicyKey, PolicyRecord, plan_tailnet},
};

/// The location of the earlier manifests.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PruneFromArgs {
    /// Delete the posture attributes that a policy declared in its earlier version and no longer declares, on
    /// the devices that it targeted then. Names the earlier manifests: a file, a folder, or a git revision
    /// of the files of -f, such as HEAD~1.
    #[arg(long, value_name = "PATH|REVISION", conflicts_with = "from_cluster")]
    prune_from: Option<String>,
}

/// The earlier specs of the policies of the same tailnet, by `namespace/name`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PruneFrom(BTreeMap<String, TailscaleDevicePolicySpec>);

impl PruneFromArgs {
    /// Reads the earlier manifests, and reports on stderr which of them the command does not act on.
    pub fn read(&self, args: &PoliciesArgs, now: &[PolicyObject]) -> Result<PruneFrom, AnyError> {
        let Some(from) = &self.prune_from else {
            return Ok(PruneFrom::default());
        };
        let namespace = args.default_namespace();
        // A path takes precedence: a branch of the same name can be written as refs/heads/NAME.
        let (read, diagnostics) = if Path::new(from).exists() {
            manifests::read(&[PathBuf::from(from)], namespace)
        } else {
            let sources = git::sources_at(from, &args.files)
                .map_err(|error| format!("--prune-from {from}: found no such file, and {error}"))?;
            manifests::read_sources(&sources, namespace, Vec::new())
        };
        if diagnostics.iter().any(|it| it.severity == Severity::Error) {
            let diagnostics = Diagnostics(diagnostics);
            return Err(format!("--prune-from {from}: {diagnostics}").into());
        }
        let then: Vec<TailscaleDevicePolicy> = read
            .policies
            .into_iter()
            .map(|located| located.object)
            .filter(|it| args.includes(it))
            .collect();
        report_gone(&then, now);
        let specs = then
            .into_iter()
            .filter(|then| is_of_the_same_tailnet(then, now))
            .map(|then| (key(&then), then.spec));
        Ok(PruneFrom(specs.collect()))
    }
}

fn key(policy: &impl ResourceExt) -> String {
    format!(
        "{}/{}",
        policy.namespace().unwrap_or_default(),
        policy.name_any()
    )
}

/// Whether the policy has not changed its tailnet since. If it has, its attributes are in the earlier
/// tailnet, which this connection does not reach.
fn is_of_the_same_tailnet(then: &TailscaleDevicePolicy, now: &[PolicyObject]) -> bool {
    let policy = key(then);
    let mut now = now.iter().filter_map(|object| object.0.as_ref().ok());
    let Some(now) = now.find(|now| key(*now) == policy) else {
        // A policy that is gone has not moved.
        return true;
    };
    let (before, after) = (then.spec.tailnet_name(), now.spec.tailnet_name());
    // Only attributes are pruned, so that nothing else is worth a message.
    if before != after && then.spec.posture_attributes.is_some() {
        eprintln!(
            "tsdp: {policy} had the tailnetRef {before} and now has {after}. The attributes that it set \
             in {before} stay as they are"
        );
    }
    before == after
}

/// Reports policies that are gone. Their settings stay, as with `Retain`: only the controller has the record
/// of the devices that `Clear` must clean up.
fn report_gone(then: &[TailscaleDevicePolicy], now: &[PolicyObject]) {
    for policy in then {
        let is_gone = !now.iter().any(|now| key(now) == key(policy));
        let clears = policy.spec.deletion_policy == Some(api::DeletionPolicy::Clear);
        if !is_gone || !(clears || policy.spec.posture_attributes.is_some()) {
            continue;
        }
        eprintln!(
            "tsdp: {} is gone. Its settings stay as they are{}",
            key(policy),
            if clears {
                ", because only the controller carries out deletionPolicy: Clear"
            } else {
                ""
            }
        );
    }
}

impl PruneFrom {
    /// Whether there are no earlier specs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives policies the record that their status would hold in a cluster: the keys that they declared, on the
    /// devices that they targeted. Finds these devices in the current list.
    pub fn restore_records(
        &self,
        policies: &mut [PolicyInput],
        fleet: &DeviceIndex,
        now: Timestamp,
    ) {
        let then: Vec<PolicyInput> = policies
            .iter()
            .filter_map(|declared| {
                let spec = self.0.get(&declared.key.to_string())?;
                Some(convert::policy(
                    declared.key.clone(),
                    String::new(),
                    0,
                    Timestamp::UNIX_EPOCH,
                    spec,
                    None,
                ))
            })
            .collect();
        // Without attributes: which policy declares a key does not depend on the observed values.
        let then = plan_tailnet(&then, &Admission::default(), fleet, &BTreeMap::new(), now);
        let mut owned: BTreeMap<PolicyKey, OwnedKeys> = BTreeMap::new();
        for (node, plan) in &then.devices {
            for (policy, keys) in plan.owners.declared_keys() {
                owned.entry(policy).or_default().add(node, keys);
            }
        }
        for declared in policies {
            if self.0.contains_key(&declared.key.to_string()) {
                // A policy from a file has no record that this could replace.
                declared.record = PolicyRecord {
                    owned: Arc::new(owned.remove(&declared.key).unwrap_or_default()),
                    ..PolicyRecord::default()
                };
            }
        }
    }
}
