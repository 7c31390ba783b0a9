//! What Terraform declares of each device.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;

use super::{
    address,
    show::{Resource, Shown},
};
use crate::{
    api::TailscaleDevicePolicySpec as Spec,
    cli::export::{
        describe::Exported,
        description::{Description, Facts, Id},
        settings::Settings,
    },
    convert,
    model::{NodeId, PolicyField, Refused, Route, RouteSet, SettingValue, Tag, TagSet},
};

/// The descriptions, and what has no counterpart.
#[derive(Debug, Default)]
pub(super) struct Described {
    pub devices: Vec<Description>,
    /// Resources that stay with Terraform.
    pub staying: Vec<String>,
    /// Why resources are not declared, each with its address.
    pub problems: Vec<(String, String)>,
}

/// A device as a data source shows it.
#[derive(Debug, Clone, Default)]
struct Known {
    node_id: String,
    name: String,
    hostname: String,
    user: String,
    os: String,
    tags: TagSet,
}

/// The resources that set a device.
pub(super) const KINDS: [&str; 4] = [
    "tailscale_device_authorization",
    "tailscale_device_key",
    "tailscale_device_subnet_routes",
    "tailscale_device_tags",
];

/// Describes each device by what Terraform declares, as far as these fields can declare it.
pub(super) fn describe(shown: &Shown, fields: &[Exported]) -> Described {
    let known = known(&shown.data);
    let mut described = Described::default();
    let mut devices: BTreeMap<Id, Description> = BTreeMap::new();
    for resource in &shown.declared {
        if !KINDS.contains(&resource.kind.as_str()) {
            // Resources of other providers are none of ours, and need no mention.
            if resource.kind.starts_with("tailscale_") {
                described.staying.push(resource.address.clone());
            }
            continue;
        }
        let declared = declared(resource, fields);
        let id = resource.values["device_id"]
            .as_str()
            .map(|id| identify(id, &known));
        let refused = match (id, declared) {
            (None, _) => Some("its device is known only after terraform apply".to_owned()),
            (Some(None), _) => Some("its device_id is not valid".to_owned()),
            (Some(Some(_)), Err(why)) => Some(why.to_string()),
            (Some(Some(id)), Ok(declared)) => {
                let device = devices
                    .entry(id.clone())
                    .or_insert_with(|| start(&id, resource, &known));
                merge(device, resource, &declared)
            }
        };
        if let Some(why) = refused {
            described.problems.push((resource.address.clone(), why));
        }
    }
    described.devices = devices.into_values().collect();
    described
}

/// The devices of the data sources, by both of their ids.
fn known(data: &[Resource]) -> BTreeMap<String, Known> {
    let mut known = BTreeMap::new();
    for source in data {
        let devices: Vec<&Value> = match source.kind.as_str() {
            "tailscale_device" => vec![&source.values],
            "tailscale_devices" => source.values["devices"]
                .as_array()
                .into_iter()
                .flatten()
                .collect(),
            _ => continue,
        };
        for device in devices {
            let text = |field: &str| device[field].as_str().unwrap_or_default().to_owned();
            let one = Known {
                node_id: text("node_id"),
                name: text("name"),
                hostname: text("hostname"),
                user: text("user"),
                os: text("os"),
                tags: texts(&device["tags"]).map(Tag::reported).collect(),
            };
            // The provider accepts both ids, and configurations have both.
            for id in [text("id"), text("node_id")] {
                if !id.is_empty() && !one.node_id.is_empty() {
                    known.insert(id, one.clone());
                }
            }
        }
    }
    known
}

fn boolean(values: &Value, field: &'static str) -> Result<bool, Undeclared> {
    let value = values[field].as_bool();
    value.ok_or(Undeclared::UnknownValue(field))
}

fn list(values: &Value, field: &'static str) -> Result<impl Iterator<Item = String>, Undeclared> {
    match &values[field] {
        list @ Value::Array(_) => Ok(texts(list)),
        _ => Err(Undeclared::UnknownList(field)),
    }
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned)
}

/// The preferred id, if a data source has it: the same device may occur under both of its ids.
fn identify(id: &str, known: &BTreeMap<String, Known>) -> Option<Id> {
    let node_id = known.get(id).map_or(id, |known| known.node_id.as_str());
    // The older id is a number, and the API still accepts it.
    if node_id.bytes().all(|b| b.is_ascii_digit()) {
        let is_valid = (1..=20).contains(&node_id.len());
        return is_valid.then(|| Id::Legacy(node_id.to_owned()));
    }
    let node_id = NodeId::from_str(node_id).ok()?;
    Some(Id::Node(node_id.to_string()))
}

fn start(id: &Id, resource: &Resource, known: &BTreeMap<String, Known>) -> Description {
    let id_kind = match id {
        Id::Node(_) => "node",
        Id::Legacy(_) => "id",
    };
    let id_title = format!("{id_kind} {}", id.as_str());
    let configured = address::of_configuration(&resource.address);
    let (label, title, facts) = match known.get(id.as_str()) {
        None => (
            address::device_name(&resource.address),
            id_title,
            Facts::default(),
        ),
        Some(known) => (
            known.name.split('.').next().unwrap_or_default().to_owned(),
            format!(
                "{}, {id_title}, hostname {}, {}",
                known.name, known.hostname, known.os
            ),
            Facts {
                tags: known.tags.clone(),
                user: known.user.clone(),
                os: known.os.clone(),
                ..Facts::default()
            },
        ),
    };
    Description {
        id: id.clone(),
        label,
        title: title + ", from Terraform",
        facts: Facts {
            resource: address::name(&configured),
            ..facts
        },
        desired: Spec::default(),
        gaps: Vec::new(),
    }
}

/// Adds what a resource declares, unless another one declares it otherwise.
fn merge(device: &mut Description, resource: &Resource, declared: &Spec) -> Option<String> {
    let conflict = |error: serde_json::Error| Some(error.to_string());
    let (before, added) = match (Settings::of(&device.desired), Settings::of(declared)) {
        (Ok(before), Ok(added)) => (before, added),
        (Err(error), _) | (_, Err(error)) => return conflict(error),
    };
    let Some(merged) = before.merged(&added) else {
        let title = &device.title;
        return Some(format!(
            "another resource declares something else for the same device: {title}"
        ));
    };
    // Terraform has a resource for each setting, and a policy has all of them.
    device.desired = match merged.spec() {
        Ok(desired) => desired,
        Err(error) => return conflict(error),
    };
    if let Some(tags) = &declared.tags {
        device.facts.tags = tags.iter().cloned().map(Tag::reported).collect();
    }
    let separator = if before.is_empty() { ": " } else { ", " };
    device.title += separator;
    device.title += &resource.address;
    None
}

/// A route as Terraform has it. In a policy, those of an exit node are a field of their own.
fn route(text: &str) -> Result<Route, Refused> {
    let mut of_exit_node = Route::exit_node().into_iter();
    let known = of_exit_node.find(|route| route.to_string() == text);
    known.map_or_else(|| text.parse(), Ok)
}

/// Why no policy declares a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Undeclared {
    /// A value of a plan that Terraform has not applied.
    #[error("its {0} is known only after terraform apply")]
    UnknownValue(&'static str),
    /// A list of such a plan.
    #[error("its {0} are known only after terraform apply")]
    UnknownList(&'static str),
    /// It would cut the device off.
    #[error("a policy that takes a device's authorization away must be written by hand")]
    Deauthorizes,
    /// A device without tags.
    #[error("the API cannot remove the last tag of a device")]
    NoTags,
    /// A route is not valid.
    #[error("{0}")]
    Route(Refused),
    /// What a policy cannot hold.
    #[error("{}", .0.join("; "))]
    Gaps(Vec<String>),
    /// The arguments exclude its field.
    #[error("--fields leaves it out")]
    LeftOut,
}

/// What a resource declares, or why no policy can.
fn declared(resource: &Resource, fields: &[Exported]) -> Result<Spec, Undeclared> {
    let values = &resource.values;
    let mut device = Description {
        id: Id::Legacy(String::new()),
        label: String::new(),
        title: String::new(),
        facts: Facts::default(),
        desired: Spec::default(),
        gaps: Vec::new(),
    };
    match resource.kind.as_str() {
        "tailscale_device_authorization" => {
            // It would cut the device off, so a person must write it.
            if !boolean(values, "authorized")? {
                return Err(Undeclared::Deauthorizes);
            }
            convert::declare(&mut device.desired, &SettingValue::Authorized(true));
        }
        "tailscale_device_key" => {
            let is_disabled = boolean(values, "key_expiry_disabled")?;
            let value = SettingValue::KeyExpiryDisabled(is_disabled);
            convert::declare(&mut device.desired, &value);
        }
        "tailscale_device_tags" => {
            let tags: TagSet = list(values, "tags")?.map(Tag::reported).collect();
            if tags.is_empty() {
                return Err(Undeclared::NoTags);
            }
            device.declare_tags(&tags);
        }
        _ => {
            let routes: Result<RouteSet, Refused> =
                list(values, "routes")?.map(|text| route(&text)).collect();
            let routes = routes.map_err(Undeclared::Route)?;
            // The list is the whole list: it also decides about an exit node.
            device.declare_routes(&routes, true);
            device.declare_exit_node(&routes, true);
        }
    }
    // In part declared, the resource could neither be removed from Terraform nor stay there.
    if !device.gaps.is_empty() {
        return Err(Undeclared::Gaps(device.gaps));
    }
    for field in PolicyField::ALL {
        if !fields.contains(&Exported(field)) {
            convert::undeclare(&mut device.desired, field);
        }
    }
    if device.desired == Spec::default() {
        return Err(Undeclared::LeftOut);
    }
    Ok(device.desired)
}
