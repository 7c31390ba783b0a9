//! The earlier versions of manifests. The controller records in the status of a policy what it manages on
//! which devices. Files have no status, but an earlier version of them gives the same record.

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
    allow::AllowArgs,
    git,
    manifests::{self, Manifests, Severity},
    output::printable,
    policies::{PoliciesArgs, PolicyObject},
    process::AnyError,
};
use crate::{
    api::{self, TailscaleDevicePolicy, TailscaleDevicePolicySpec},
    convert,
    model::{ListSetting, NodeId},
    plan::{
        Admission, Binding, DeviceIndex, DevicePlan, Field, ManagedDevices, ManagedFields, Mode,
        OwnedKeys, Policy, PolicyInput, PolicyKey, PolicyRecord, TailnetPlan, bind_policy,
        plan_tailnet,
    },
};

/// The location of the earlier manifests.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PruneFromArgs {
    /// Release what a policy declared in its earlier version and no longer declares, as the controller does:
    /// delete posture attributes on the devices that it targeted then, report a field that stays, and under
    /// deletionPolicy: Clear withdraw its routes on the devices that it still targets. Names the earlier manifests: a file, a folder, or a git revision
    /// of the files of -f, such as HEAD~1.
    #[arg(
        hide_short_help = true,
        long,
        value_name = "PATH|REVISION",
        conflicts_with = "from_cluster"
    )]
    prune_from: Option<String>,
}

/// The earlier specs of the policies of the same tailnet, by `namespace/name`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PruneFrom(BTreeMap<String, TailscaleDevicePolicySpec>);

impl PruneFromArgs {
    /// Whether the arguments name earlier manifests.
    pub fn is_given(&self) -> bool {
        self.prune_from.is_some()
    }

    /// Reads the earlier manifests, and reports on stderr which of them the command does not act on.
    pub fn read(
        &self,
        args: &PoliciesArgs,
        allow: AllowArgs,
        now: &[PolicyObject],
    ) -> Result<PruneFrom, AnyError> {
        let Some(from) = &self.prune_from else {
            return Ok(PruneFrom::default());
        };
        let read = earlier_manifests(from, args)?;
        allow.refuse_nothing_earlier(from, read.found)?;
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

/// The valid ones of the earlier manifests. Reports the others.
fn earlier_manifests(from: &str, args: &PoliciesArgs) -> Result<Manifests, AnyError> {
    let namespace = args.default_namespace();
    // A path takes precedence: a branch of the same name can be written as refs/heads/NAME.
    let (read, diagnostics) = if Path::new(from).exists() {
        manifests::read(&[PathBuf::from(from)], namespace)
    } else {
        let found = git::sources_at(from, &args.files)
            .map_err(|error| format!("--prune-from {from}: found no such file, and {error}"))?;
        for path in found.without {
            eprintln!(
                "tsdp: --prune-from {from}: git finds no manifest at {}, neither there nor renamed since",
                path.display()
            );
        }
        manifests::read_sources(&found.sources, namespace, found.diagnostics)
    };
    let mut errors = diagnostics;
    errors.retain(|it| it.severity == Severity::Error);
    // Not an error: else the commit that corrects a manifest could not be planned.
    if !errors.is_empty() {
        eprintln!(
            "tsdp: --prune-from {from}: these manifests are not valid. What their policies declared is unknown, and \
             stays as it is:"
        );
        for error in &errors {
            eprintln!("  {}", printable(&error.to_string()));
        }
    }
    Ok(read)
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
    // Everything else stays there too, but only attributes would be expected to go.
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

    /// Gives policies the record that their status would hold in a cluster: the fields and keys that they
    /// declared, on the devices that they targeted. Finds these devices in the current list.
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
        let earlier = plan_tailnet(&then, &Admission::default(), fleet, &BTreeMap::new(), now);
        let mut owned: BTreeMap<PolicyKey, OwnedKeys> = BTreeMap::new();
        for (node, plan) in &earlier.devices {
            for (policy, keys) in plan.owners.declared_keys() {
                owned.entry(policy).or_default().add(node, keys);
            }
        }
        let then: BTreeMap<PolicyKey, Arc<Policy>> = then
            .into_iter()
            .filter_map(|then| Some((then.key, then.policy.ok()?)))
            .collect();
        for declared in policies {
            let (Some(then), Ok(now)) = (then.get(&declared.key), &declared.policy) else {
                continue;
            };
            let binding = bind_policy(now, &PolicyRecord::default(), &declared.approvals, fleet);
            // A policy from a file has no record that this could replace.
            declared.record = PolicyRecord {
                owned: Arc::new(owned.remove(&declared.key).unwrap_or_default()),
                fields: managed_fields(then, &earlier),
                managed: Arc::new(managed_devices(then, &earlier, &binding)),
                ..PolicyRecord::default()
            };
        }
    }
}

/// The fields that an earlier version of a policy managed.
fn managed_fields(then: &Policy, earlier: &TailnetPlan) -> ManagedFields {
    let none = PolicyRecord::default();
    let managed = then
        .unmanaged_fields(&none)
        .filter(|(_, field)| targets(then, earlier).any(|(_, plan)| manages(then, plan, field)));
    ManagedFields {
        fields: managed.map(|(field, _)| field).collect(),
        released: None,
    }
}

/// The routes that an earlier version of a policy under `Clear` approved, on devices that it still targets.
fn managed_devices(then: &Policy, earlier: &TailnetPlan, now: &Binding) -> ManagedDevices {
    let mut managed = ManagedDevices::default();
    if !then.clears() {
        return managed;
    }
    managed.name_routes(then.named_routes());
    for (node, plan) in targets(then, earlier).filter(|(node, _)| now.holds(node)) {
        let routes = managed
            .routes
            .iter()
            .filter(|route| manages(then, plan, &Field::List(ListSetting::of_route(route))))
            .copied()
            .collect();
        managed.hold(vec![node.clone()]);
        managed.manage_routes(node, &routes);
    }
    managed
}

fn targets<'a>(
    then: &Policy,
    earlier: &'a TailnetPlan,
) -> impl Iterator<Item = (&'a NodeId, &'a DevicePlan)> {
    let binding = earlier.bindings.get(&then.key);
    let nodes = binding.into_iter().flat_map(Binding::nodes);
    nodes.filter_map(|node| earlier.devices.get_key_value(node))
}

/// Whether an earlier version of a policy set a field of a device, as far as its manifest shows.
fn manages(then: &Policy, plan: &DevicePlan, field: &Field) -> bool {
    let mut conflicts = plan.owners.conflicts.iter();
    let sends = matches!(then.mode, Mode::Enforce | Mode::Approve);
    sends && !conflicts.any(|it| it.overridden == then.key && it.field == *field)
}
