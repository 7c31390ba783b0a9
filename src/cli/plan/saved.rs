//! A plan in a file: enough to tell later whether it still holds, and to carry it out then.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt as _;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Proposal, view::View};
use crate::{
    api::{DeserializeGuard, GROUP, TailscaleDevicePolicy, VERSION},
    cli::{
        AnyError,
        guardrails::DeclaredGuardrails,
        manifests::{self, Diagnostics, Severity, Source},
        policies::PolicyObject,
        prune_from::PruneFrom,
    },
    model::{Attributes, ChangeLimit, Device},
    plan::Admission,
};

/// The version of the format: another one is refused.
const FORMAT: u32 = 4;
/// Devices that are named where the tailnet has moved.
const TOLD: usize = 20;

/// Holds no credential, nor anything that a policy does not say or the list does not show.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct SavedPlan {
    /// [`FORMAT`]
    format: u32,
    /// The program that made it, and its version.
    made_by: String,
    made_at: Timestamp,
    /// The domain of the tailnet's names: another tailnet is not the one that is meant.
    tailnet: Option<String>,
    /// How many devices it may change.
    max_changed_devices: String,
    /// The policies, without their status.
    policies: Vec<Value>,
    /// What the tailnet permits.
    guards: DeclaredGuardrails,
    /// Of `policies` and `guards`.
    policies_hash: String,
    /// What they declared at an earlier time.
    #[serde(default, skip_serializing_if = "PruneFrom::is_empty")]
    earlier: PruneFrom,
    /// What the plan found of each device that a policy means, by node id.
    devices: BTreeMap<String, Found>,
    /// The plan as it was told.
    #[serde(flatten)]
    reported: Map<String, Value>,
}

/// A device as the plan found it.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// What people call it.
    device: String,
    /// A fingerprint of each of its settings.
    settings: BTreeMap<String, String>,
}

impl SavedPlan {
    /// Everything that the plan came from.
    pub fn of(
        objects: &[PolicyObject],
        guards: DeclaredGuardrails,
        earlier: PruneFrom,
        proposal: &Proposal,
        view: &View<'_>,
    ) -> serde_json::Result<Self> {
        let policies = objects.iter().filter_map(|object| object.0.as_ref().ok());
        let mut policies: Vec<Value> = policies.map(manifest).collect();
        policies.sort_by_key(|policy| policy["metadata"].to_string());
        Ok(Self {
            format: FORMAT,
            made_by: concat!("tsdp ", env!("CARGO_PKG_VERSION")).to_owned(),
            made_at: proposal.now,
            tailnet: proposal.snapshot.fleet.domain(),
            max_changed_devices: proposal.limit.to_string(),
            policies_hash: hash(&json!([policies, guards])),
            policies,
            guards,
            earlier,
            devices: found(proposal),
            reported: serde_json::from_value(json!(view))?,
        })
    }

    /// Reads a plan; `None` where the file holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        let called = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // Whoever reads it for manifests says so.
            Err(_) if path.is_dir() => return Ok(None),
            Err(error) => return Err(format!("cannot read {called}: {error}")),
        };
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Ok(None);
        };
        if value.get("policiesHash").is_none() {
            return Ok(None);
        }
        if value["format"] != FORMAT {
            return Err(format!(
                "{called} is a plan of format {}, made by {}, and this is tsdp {}, which reads format \
                 {FORMAT}: make another plan by this program",
                value["format"],
                value["madeBy"].as_str().unwrap_or("another program"),
                env!("CARGO_PKG_VERSION"),
            ));
        }
        let plan: Self = serde_json::from_value(value)
            .map_err(|error| format!("{called} is no whole plan: {error}"))?;
        if hash(&json!([plan.policies, plan.guards])) != plan.policies_hash {
            return Err(format!(
                "{called} was edited: its policies and guards are not those that were planned. Make another plan"
            ));
        }
        Ok(Some(plan))
    }

    /// Its policies, checked as those of files are.
    pub fn policies(&self) -> Result<Vec<PolicyObject>, AnyError> {
        let policies = self.policies.iter().map(ToString::to_string);
        let source = Source {
            name: "the plan".to_owned(),
            text: policies.collect::<Vec<_>>().join("\n---\n"),
        };
        let (read, faults) = manifests::read_sources(&[Arc::new(source)], "default", Vec::new());
        if faults.iter().any(|it| it.severity == Severity::Error) {
            return Err(Diagnostics(faults).into());
        }
        let policies = read.policies.into_iter();
        Ok(policies
            .map(|located| DeserializeGuard(Ok(located.object)))
            .collect())
    }

    /// How many devices it may change.
    pub fn limit(&self) -> Result<ChangeLimit, String> {
        let limit = self.max_changed_devices.parse();
        limit.map_err(|refused| format!("maxChangedDevices of the plan: {refused}"))
    }

    /// What the tailnet permits.
    pub fn guards(&self) -> Result<Admission, String> {
        self.guards.read()
    }

    /// What its policies named at an earlier time.
    pub fn earlier(&self) -> &PruneFrom {
        &self.earlier
    }

    /// When and by what it was made.
    pub fn origin(&self) -> String {
        let age = Timestamp::now().duration_since(self.made_at).as_secs();
        let (count, unit) = match age.max(0) {
            seconds @ ..120 => (seconds, "seconds"),
            seconds @ ..7200 => (seconds / 60, "minutes"),
            seconds @ ..172_800 => (seconds / 3600, "hours"),
            seconds => (seconds / 86_400, "days"),
        };
        format!("{count} {unit} ago by {}", self.made_by)
    }

    /// Refuses what is compared now, unless it is what was compared then.
    pub fn refuse_moved(&self, now: &Proposal) -> Result<(), String> {
        let domain = now.snapshot.fleet.domain();
        if domain != self.tailnet {
            let name = |domain: &Option<String>| domain.clone().unwrap_or("no tailnet".to_owned());
            return Err(format!(
                "the plan was made for {}, and this is {}: nothing was sent",
                name(&self.tailnet),
                name(&domain)
            ));
        }
        let found = found(now);
        let moved = moved(&self.devices, &found);
        if !moved.is_empty() {
            let more = moved.len().saturating_sub(TOLD);
            let more = (more > 0).then(|| format!("\n  … and {more} more"));
            let text: String = moved.into_iter().take(TOLD).chain(more).collect();
            return Err(format!(
                "the tailnet has moved since the plan was made ({}), so nothing was sent:{text}\n\
                 Make another plan",
                self.origin()
            ));
        }
        let changes = json!(now.view().changes);
        if self.reported.get("changes") != Some(&changes) {
            return Err(format!(
                "the same policies ask for other changes than the plan that was made {}, so nothing was \
                 sent: make another plan",
                self.origin()
            ));
        }
        Ok(())
    }
}

/// What is said of each device that is another one than it was.
fn moved(before: &BTreeMap<String, Found>, now: &BTreeMap<String, Found>) -> Vec<String> {
    let mut moved = Vec::new();
    for (node, then) in before {
        let called = &then.device;
        let Some(now) = now.get(node) else {
            moved.push(format!(
                "\n  {called} ({node}) is gone, or no policy means it"
            ));
            continue;
        };
        let settings = then.settings.iter();
        let other = settings.filter(|(setting, print)| now.settings.get(*setting) != Some(print));
        let other: Vec<_> = other.map(|(setting, _)| setting.as_str()).collect();
        if !other.is_empty() {
            moved.push(format!("\n  {called}: {}", other.join(", ")));
        }
    }
    let new = now.iter().filter(|(node, _)| !before.contains_key(*node));
    moved.extend(new.map(|(node, now)| format!("\n  {} ({node}) is new", now.device)));
    moved
}

fn found(proposal: &Proposal) -> BTreeMap<String, Found> {
    let snapshot = &proposal.snapshot;
    let devices = proposal.survey.devices.keys().filter_map(|node| {
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

/// Tells whether a device is still as the plan found it: its settings and who it is; not what moves by
/// itself, such as when it was last seen and what client it runs.
fn fingerprints(device: &Device, attributes: Option<&Attributes>) -> BTreeMap<String, String> {
    let settings = [
        ("name", json!(device.name)),
        ("hostname", json!(device.hostname)),
        ("user", json!(device.user)),
        ("os", json!(device.os)),
        ("tags", json!(device.tags)),
        ("ipv4", json!(device.ipv4)),
        ("authorized", json!(device.authorized)),
        ("external", json!(device.external)),
        ("keyExpiry", json!(device.key_expiry_disabled)),
        ("expires", json!(device.expires)),
        ("enabledRoutes", json!(device.enabled_routes)),
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
    let settings = settings.into_iter();
    settings
        .map(|(setting, value)| {
            let mut print = hash(&value);
            // Enough to tell two states of one setting apart.
            print.truncate("sha256:".len() + 16);
            (setting.to_owned(), print)
        })
        .collect()
}

/// The SHA-256 of JSON whose maps are sorted.
fn hash(value: &Value) -> String {
    let hash = digest(&SHA256, value.to_string().as_bytes());
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}
