//! What manifests said at an earlier time. The controller remembers which attributes a policy has
//! named, in its status; files remember nothing, but somebody may have kept their former state.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    AnyError, git,
    manifests::{self, Faults, Severity},
    policies::{self, PoliciesArgs},
};
use crate::api::DeserializeGuard;
use crate::{
    model::AttributeKey,
    plan::{
        Approvals, Binding, Declared, Deletion, Fleet, Memory, Mode, Policy, PolicyKey, Target,
        bind, remembered,
    },
};

/// Where the former state of the manifests is.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct EarlierArgs {
    /// Delete the attributes that a policy named there and names no more: a file or folder with the
    /// former manifests, or a git revision of the files of -f, such as HEAD~1.
    #[arg(long, value_name = "PATH|REVISION", conflicts_with = "from_cluster")]
    prune_from: Option<String>,
}

/// What the policies of an earlier time named.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Earlier(BTreeMap<String, Named>);

/// The attributes that a policy named.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    /// Of this one device, as the manifest named it; `None` for a fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    attributes: BTreeSet<String>,
}

impl EarlierArgs {
    /// Reads the former state, and says on stderr what of it is not acted on.
    pub fn read(&self, args: &PoliciesArgs, now: &[Declared]) -> Result<Earlier, AnyError> {
        let Some(from) = &self.prune_from else {
            return Ok(Earlier::default());
        };
        let namespace = args.default_namespace();
        let (read, faults) = if Path::new(from).exists() {
            manifests::read(&[PathBuf::from(from)], namespace)
        } else {
            let sources = git::sources_at(from, &args.files)
                .map_err(|error| format!("--prune-from {from}: no such file, and {error}"))?;
            manifests::read_sources(&sources, namespace, Vec::new())
        };
        if faults.iter().any(|it| it.severity == Severity::Error) {
            let faults = Faults(faults);
            return Err(format!("the former manifests of --prune-from {from}: {faults}").into());
        }
        let objects = read.policies.into_iter();
        let objects: Vec<_> = objects
            .filter(|located| args.concerns(&located.object))
            .map(|located| DeserializeGuard(Ok(located.object)))
            .collect();
        let then = policies::declared(&objects);
        let then: Vec<&Policy> = then
            .iter()
            .filter_map(|it| it.policy.as_ref().ok())
            .collect();
        tell_gone(&then, now);
        let named = then.into_iter().filter_map(Named::of);
        Ok(Earlier(named.collect()))
    }
}

/// What a policy that is gone has put on devices stays, as under `Retain`: which devices it held under
/// `Clear` is known to the controller alone.
fn tell_gone(then: &[&Policy], now: &[Declared]) {
    let is_gone = |policy: &&&Policy| !now.iter().any(|declared| declared.key == policy.key);
    let leaves = |policy: &&&Policy| {
        policy.deletion == Deletion::Clear || policy.wishes.attributes.is_some()
    };
    let gone = then.iter().filter(is_gone).filter(leaves);
    for policy in gone {
        eprintln!(
            "tsdp: {} is gone since; what it has set stays as it is{}",
            policy.key,
            match policy.deletion {
                Deletion::Clear => ": deletionPolicy Clear is carried out by the controller alone",
                Deletion::Retain => "",
            }
        );
    }
}

impl Named {
    /// What a policy has set; one that sends nothing has set nothing.
    fn of(policy: &Policy) -> Option<(String, Self)> {
        let acts = matches!(policy.mode, Mode::Enforce | Mode::Approve);
        let attributes = policy.wishes.attributes.as_ref().filter(|_| acts)?;
        let named = Self {
            device: match &policy.target {
                Target::Device(target) => Some(target.identity.to_string()),
                Target::Fleet(_) => None,
            },
            attributes: attributes.keys().map(ToString::to_string).collect(),
        };
        Some((policy.key.to_string(), named))
    }
}

impl Earlier {
    /// Whether nothing is known of an earlier time.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has policies remember what they named, as their status would. Of one device only where it is the
    /// device that they mean now: what they set on another one stays, as under `Retain`.
    pub fn remind(&self, policies: &mut [Declared], fleet: &Fleet) {
        for declared in policies {
            let Ok(policy) = &declared.policy else {
                continue;
            };
            if let Some(named) = self.of(&declared.key) {
                let memory = named.memory(&policy.target, &declared.approvals, fleet);
                declared.memory = memory.unwrap_or_default();
            }
        }
    }

    fn of(&self, key: &PolicyKey) -> Option<&Named> {
        self.0.get(&key.to_string())
    }
}

impl Named {
    fn memory(&self, target: &Target, approvals: &Approvals, fleet: &Fleet) -> Option<Memory> {
        let bound = match (target, &self.device) {
            (Target::Fleet(_), None) => None,
            (Target::Device(device), Some(named)) if device.identity.to_string() == *named => {
                let found = bind(target, &Memory::default(), approvals, fleet);
                let Binding::Device(node) = found else {
                    return None;
                };
                Some(remembered(device, fleet.get(&node)?))
            }
            _ => return None,
        };
        let keys = self.attributes.iter();
        Some(Memory {
            bound,
            owned_keys: keys
                .filter_map(|key| key.parse::<AttributeKey>().ok())
                .collect(),
            ..Memory::default()
        })
    }
}
