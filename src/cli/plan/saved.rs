//! A plan in a file, with all that a later apply needs to decide whether the plan still holds.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt as _;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{PlanRun, view::View};
use crate::{
    api::{GROUP, TailscaleDevicePolicy, VERSION},
    cli::{
        guardrails::{DeclaredGuardrails, UnreadableGuardrails},
        manifests::{self, Diagnostics, Severity, Source},
        policies::PolicyObject,
        process::AnyError,
        prune_from::PruneFrom,
    },
    model::{Attributes, ChangeLimit, Device, ListSetting, Refused, Setting},
    plan::{Admission, PolicyInput},
};

/// The version of the format. A file of another version is refused.
const FORMAT: u32 = 6;
/// The maximum number of changed devices that an error lists.
const MAX_LISTED: usize = 20;

/// Why a saved plan cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SavedPlanError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, #[source] io::Error),
    /// Another version of the program made it.
    #[error(
        "{file} is a plan of format {format}, made by {made_by}. This is tsdp {}, which reads format {FORMAT}. \
         Make another plan with this program",
        env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// The file.
        file: String,
        /// Its format.
        format: Value,
        /// The program.
        made_by: String,
    },
    /// A part is missing.
    #[error("{0} is not a complete plan: {1}")]
    Incomplete(String, #[source] serde_json::Error),
    /// The hash of its policies is another one.
    #[error(
        "{0} was edited: its policies and guardrails are not the planned ones. Make another plan"
    )]
    Edited(String),
    /// It is another file.
    #[error("{0} is not a plan that tsdp plan --out saved. Add -f {0} if it holds manifests")]
    NotAPlan(String),
    /// Arguments that it has already.
    #[error(
        "{0} is a saved plan, which has its policies and their earlier versions. Give these arguments to \
         tsdp plan --out, and none of --prune-from, --tailnet-ref, --namespace and --controller-namespace here"
    )]
    UnusedArguments(String),
    /// Its limit is not valid.
    #[error("maxChangedDevices of the plan: {0}")]
    Limit(Refused),
    /// The credential is one of another tailnet.
    #[error("the plan was made for {made}, and this is {now}, so nothing was sent")]
    OtherTailnet {
        /// The tailnet of the plan.
        made: String,
        /// The tailnet of the credential.
        now: String,
    },
    /// Devices differ.
    #[error(
        "the tailnet has changed since the plan was made ({origin}), so nothing was sent:{devices}\n\
         Make another plan"
    )]
    Changed {
        /// When it was made, and by which program.
        origin: String,
        /// A line for each device.
        devices: String,
    },
    /// The same devices get another plan.
    #[error(
        "the same policies ask for other changes than the plan that was made {0}, so nothing was sent. \
         Make another plan"
    )]
    OtherChanges(String),
}

/// A saved plan. Holds no credential, and nothing beyond the policies and the list of devices.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct SavedPlan {
    /// [`FORMAT`]
    format: u32,
    /// The program that made it, and its version.
    made_by: String,
    made_at: Timestamp,
    /// The domain of the tailnet's names, by which an apply refuses to change another tailnet.
    tailnet: Option<String>,
    /// The maximum number of changed devices.
    max_changed_devices: String,
    /// The policies, without their status.
    policies: Vec<Value>,
    /// The guardrails of the tailnet.
    guardrails: DeclaredGuardrails,
    /// A hash of `policies` and `guardrails`, to find edits.
    policies_hash: String,
    /// The earlier versions of the policies, of `--prune-from`.
    #[serde(default, skip_serializing_if = "PruneFrom::is_empty")]
    prune_from: PruneFrom,
    /// The observed state of each device that a policy targets, by nodeId.
    devices: BTreeMap<String, Found>,
    /// The plan as it was shown.
    #[serde(flatten)]
    reported: Map<String, Value>,
}

/// The observed state of a device.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// The first label of its name.
    device: String,
    /// A fingerprint of each of its settings.
    settings: BTreeMap<String, String>,
}

impl SavedPlan {
    /// Saves a plan with all of its inputs.
    pub fn of(
        objects: &[PolicyObject],
        guardrails: DeclaredGuardrails,
        prune_from: PruneFrom,
        plan_run: &PlanRun,
        view: &View<'_>,
    ) -> serde_json::Result<Self> {
        let mut policies: Vec<Value> = objects
            .iter()
            .filter_map(|object| object.0.as_ref().ok())
            .map(manifest)
            .collect();
        // The order of the files must not change the hash.
        policies.sort_by_key(|policy| policy["metadata"].to_string());
        Ok(Self {
            format: FORMAT,
            made_by: concat!("tsdp ", env!("CARGO_PKG_VERSION")).to_owned(),
            made_at: plan_run.now,
            tailnet: plan_run.snapshot.fleet.domain(),
            max_changed_devices: plan_run.limit.to_string(),
            policies_hash: hash(&json!([policies, guardrails])),
            policies,
            guardrails,
            prune_from,
            devices: found(plan_run),
            reported: serde_json::from_value(json!(view))?,
        })
    }

    /// Reads a plan. Returns `None` if the file holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, SavedPlanError> {
        let name = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // The reader of manifests reports its errors.
            Err(_) if path.is_dir() => return Ok(None),
            Err(error) => return Err(SavedPlanError::Unreadable(name, error)),
        };
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Ok(None);
        };
        // Another JSON file, which may be a manifest.
        if value.get("policiesHash").is_none() {
            return Ok(None);
        }
        // Before the rest is parsed, which would fail with the name of some field.
        if value["format"] != FORMAT {
            let made_by = value["madeBy"].as_str().unwrap_or("another program");
            return Err(SavedPlanError::Format {
                file: name,
                format: value["format"].clone(),
                made_by: made_by.to_owned(),
            });
        }
        let plan: Self = serde_json::from_value(value)
            .map_err(|error| SavedPlanError::Incomplete(name.clone(), error))?;
        // Against mistakes, not attackers: anyone who can write the file can also compute the hash.
        if hash(&json!([plan.policies, plan.guardrails])) != plan.policies_hash {
            return Err(SavedPlanError::Edited(name));
        }
        Ok(Some(plan))
    }

    /// Its policies, checked as policies from files.
    pub fn policies(&self) -> Result<Vec<PolicyInput>, AnyError> {
        let policies = self.policies.iter().map(ToString::to_string);
        let source = Source::new("the plan", policies.collect::<Vec<_>>().join("\n---\n"));
        let (read, diagnostics) =
            manifests::read_sources(&[Arc::new(source)], "default", Vec::new());
        if diagnostics.iter().any(|it| it.severity == Severity::Error) {
            return Err(Diagnostics(diagnostics).into());
        }
        Ok(read.policies.into_iter().map(|it| it.input).collect())
    }

    /// The maximum number of changed devices.
    pub fn limit(&self) -> Result<ChangeLimit, SavedPlanError> {
        let limit = self.max_changed_devices.parse();
        limit.map_err(SavedPlanError::Limit)
    }

    /// The guardrails of the tailnet.
    pub fn guardrails(&self) -> Result<Admission, UnreadableGuardrails> {
        self.guardrails.read()
    }

    /// The earlier versions of its policies.
    pub fn prune_from(&self) -> &PruneFrom {
        &self.prune_from
    }

    /// Its age, and the program that made it.
    pub fn origin(&self) -> String {
        let age = Timestamp::now().duration_since(self.made_at).as_secs();
        // Negative if the clock was set back, or if another machine made the plan.
        let (count, unit) = match age.max(0) {
            seconds @ ..120 => (seconds, "seconds"),
            seconds @ ..7200 => (seconds / 60, "minutes"),
            seconds @ ..172_800 => (seconds / 3600, "hours"),
            seconds => (seconds / 86_400, "days"),
        };
        format!("{count} {unit} ago by {}", self.made_by)
    }

    /// Refuses the plan if the tailnet, a device, or a change differs from when it was saved.
    pub fn refuse_changed(&self, now: &PlanRun) -> Result<(), SavedPlanError> {
        let domain = now.snapshot.fleet.domain();
        // By its domain, as `-` names a different tailnet for each credential.
        if domain != self.tailnet {
            let name = |domain: &Option<String>| domain.clone().unwrap_or("no tailnet".to_owned());
            return Err(SavedPlanError::OtherTailnet {
                made: name(&self.tailnet),
                now: name(&domain),
            });
        }
        let found = found(now);
        let changed = changed_devices(&self.devices, &found);
        if !changed.is_empty() {
            let more = match changed.len().saturating_sub(MAX_LISTED) {
                0 => None,
                count => Some(format!("\n  … and {count} more")),
            };
            return Err(SavedPlanError::Changed {
                origin: self.origin(),
                devices: changed.into_iter().take(MAX_LISTED).chain(more).collect(),
            });
        }
        // The same devices are not enough: the plan also depends on the time and on the program.
        let computed = json!(now.view().changes);
        if self.reported.get("changes") != Some(&computed) {
            return Err(SavedPlanError::OtherChanges(self.origin()));
        }
        Ok(())
    }
}

/// A line for each device whose observed state changed.
fn changed_devices(before: &BTreeMap<String, Found>, now: &BTreeMap<String, Found>) -> Vec<String> {
    let mut changed = Vec::new();
    for (node, then) in before {
        let name = &then.device;
        let Some(now) = now.get(node) else {
            changed.push(format!(
                "\n  {name} ({node}) is gone, or no policy targets it any longer"
            ));
            continue;
        };
        let settings = then.settings.iter();
        let other: Vec<_> = settings
            .filter(|(setting, hash)| now.settings.get(*setting) != Some(hash))
            .map(|(setting, _)| setting.as_str())
            .collect();
        if !other.is_empty() {
            changed.push(format!("\n  {name}: {}", other.join(", ")));
        }
    }
    let new = now.iter().filter(|(node, _)| !before.contains_key(*node));
    changed.extend(new.map(|(node, now)| format!("\n  {} ({node}) is new", now.device)));
    changed
}

fn found(plan_run: &PlanRun) -> BTreeMap<String, Found> {
    let snapshot = &plan_run.snapshot;
    let devices = plan_run.tailnet_plan.devices.keys().filter_map(|node| {
        let device = snapshot.fleet.get(node)?;
        let found = Found {
            device: device.label().to_string(),
            settings: fingerprints(device, snapshot.attributes.get(node)),
        };
        Some((node.to_string(), found))
    });
    devices.collect()
}

fn manifest(policy: &TailscaleDevicePolicy) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "TailscaleDevicePolicy",
        "metadata": {"name": policy.name_any(), "namespace": policy.namespace()},
        "spec": policy.spec,
    })
}

/// Hashes by which a later apply finds that a device's settings or identity changed. Leaves out what
/// changes by itself, such as the time at which it was last seen or the version of its client.
fn fingerprints(device: &Device, attributes: Option<&Attributes>) -> BTreeMap<String, String> {
    let settings =
        Setting::ALL.map(|setting| (setting.field().as_str(), json!(setting.of(device))));
    // Besides the settings: what selectors match, and what decides whether a change is held.
    let others = [
        // The whole name: its domain changes with the tailnet.
        ("name", json!(device.name)),
        ("hostname", json!(device.hostname)),
        ("user", json!(device.user)),
        ("os", json!(device.os)),
        ("external", json!(device.external)),
        ("expires", json!(device.expires)),
        (
            "postureAttributes",
            json!(attributes.map(|attributes| {
                let by_key = attributes
                    .iter()
                    .map(|(key, value)| (key.to_string(), json!(value)));
                by_key.collect::<BTreeMap<_, _>>()
            })),
        ),
    ];
    let lists = ListSetting::ALL.into_iter().map(|list| match list {
        ListSetting::Tags => ("tags", json!(device.tags)),
        // The routes of an exit node are among the enabled routes.
        ListSetting::EnabledRoutes | ListSetting::ExitNode => {
            ("enabledRoutes", json!(device.enabled_routes))
        }
    });
    settings
        .into_iter()
        .chain(lists)
        .chain(others)
        .map(|(setting, value)| {
            let mut fingerprint = hash(&value);
            // 64 bits are enough to distinguish two states of one setting.
            fingerprint.truncate("sha256:".len() + 16);
            (setting.to_owned(), fingerprint)
        })
        .collect()
}

/// The SHA-256 of JSON. The maps of a `Value` are sorted, so that equal values have equal hashes.
fn hash(value: &Value) -> String {
    let hash = digest(&SHA256, value.to_string().as_bytes());
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ListValue;

    #[test]
    fn fingerprints_show_a_change_of_each_setting() {
        for setting in Setting::ALL {
            let mut device = Device::plain("n1CNTRL".parse().unwrap());
            let [first, second] = setting.examples().map(|value| {
                value.apply(&mut device);
                fingerprints(&device, None)
            });
            let field = setting.field().as_str();
            let differ = first.iter().filter(|(name, hash)| second[*name] != **hash);
            let differ: Vec<&String> = differ.map(|(name, _)| name).collect();
            assert_eq!(differ, [field]);
        }
    }

    #[test]
    fn fingerprints_show_a_change_of_each_list() {
        for list in ListSetting::ALL {
            let [first, second] = list.examples().map(|value| {
                let mut device = Device::plain("n1CNTRL".parse().unwrap());
                match &value {
                    ListValue::Tags(tags) => device.tags.clone_from(tags),
                    ListValue::EnabledRoutes(routes) | ListValue::ExitNode(routes) => {
                        device.enabled_routes = Some(routes.clone());
                    }
                }
                fingerprints(&device, None)
            });
            assert_ne!(first, second, "{list:?}");
        }
    }
}
