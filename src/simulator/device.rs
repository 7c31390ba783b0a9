//! A device as the simulator stores it, in the shape of the list response.
//!
//! This module shares nothing with the client's types, so that a wrong field name in the client cannot have
//! its counterpart here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Go's zero time, which the API uses for "none": 0001-01-01T00:00:00Z.
pub(super) const ZERO_TIME: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// The fields of the list response.
#[expect(clippy::struct_excessive_bools, reason = "the API's own fields")]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Device {
    /// IPv4 first, then IPv6.
    pub addresses: Vec<IpAddr>,
    pub id: String,
    pub node_id: String,
    pub user: String,
    /// The FQDN: `label.tailnet.ts.net`.
    pub name: String,
    pub hostname: String,
    pub client_version: String,
    pub update_available: bool,
    pub os: String,
    /// `""` for external devices, hence a string.
    pub created: String,
    /// Absent if never online. Of a connected device, a switch decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    pub connected_to_control: bool,
    pub key_expiry_disabled: bool,
    pub expires: Timestamp,
    pub authorized: bool,
    pub is_external: bool,
    /// Absent if false, as in recorded answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_ephemeral: bool,
    pub machine_key: String,
    pub node_key: String,
    pub blocks_incoming_connections: bool,
    /// Sorted. Absent if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub tailnet_lock_error: String,
    pub tailnet_lock_key: String,
    /// This and all following fields appear only with `fields=all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled_routes: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised_routes: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_connectivity: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture_identity: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distro: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth_client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture_status: Option<Value>,
    /// Fields without a meaning in the simulator, so that clients can be tried with new ones.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A device with the data that the list does not show.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub device: Device,
    pub attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attribute {
    pub value: Value,
    pub expiry: Option<Timestamp>,
}

impl Default for Device {
    /// The defaults of fields that a file or a test leaves out.
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            id: String::new(),
            node_id: String::new(),
            user: "amelie@example.com".into(),
            name: String::new(),
            hostname: String::new(),
            client_version: "1.96.2".into(),
            update_available: false,
            os: "linux".into(),
            created: "2026-01-05T08:00:00Z".into(),
            last_seen: None,
            connected_to_control: true,
            key_expiry_disabled: false,
            // 2099-01-01, so that no key of a test expires by itself.
            expires: Timestamp::constant(4_070_908_800, 0),
            authorized: true,
            is_external: false,
            is_ephemeral: false,
            machine_key: String::new(),
            node_key: String::new(),
            blocks_incoming_connections: false,
            tags: Vec::new(),
            tailnet_lock_error: String::new(),
            tailnet_lock_key: String::new(),
            // `[]` and not absent, as the API sends them.
            enabled_routes: Some(Vec::new()),
            advertised_routes: Some(Vec::new()),
            client_connectivity: None,
            posture_identity: None,
            ssh_enabled: Some(false),
            // Present though empty, in recorded answers.
            distro: Some(Value::Object(Map::new())),
            oauth_client_id: Some(String::new()),
            posture_status: Some(Value::Object(Map::new())),
            other: Map::new(),
        }
    }
}

impl Device {
    /// Whether an id in a path is one of this device's two ids.
    pub fn has_id(&self, id: &str) -> bool {
        self.node_id == id || self.id == id
    }

    /// The name before the tailnet's domain.
    pub fn label(&self) -> &str {
        self.name
            .split_once('.')
            .map_or(&*self.name, |(label, _)| label)
    }

    /// The tailnet's domain: what follows the label.
    pub fn domain(&self) -> &str {
        self.name.split_once('.').map_or("", |(_, domain)| domain)
    }

    pub fn rename(&mut self, label: &str) {
        self.name = format!("{label}.{}", self.domain());
    }

    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(ipv4) => Some(*ipv4),
            IpAddr::V6(_) => None,
        })
    }

    /// Removes the fields that only `fields=all` shows.
    pub fn without_details(&self) -> Self {
        Self {
            enabled_routes: None,
            advertised_routes: None,
            client_connectivity: None,
            posture_identity: None,
            ssh_enabled: None,
            distro: None,
            oauth_client_id: None,
            posture_status: None,
            ..self.clone()
        }
    }

    pub fn without_routes(&self) -> Self {
        Self {
            enabled_routes: None,
            advertised_routes: None,
            ..self.clone()
        }
    }

    /// Sorts lists as the API does, and drops fields that it omits.
    pub fn normalize(&mut self) {
        // The API returns tags sorted, whatever the order of the write.
        self.tags.sort();
        self.tags.dedup();
        for routes in [&mut self.enabled_routes, &mut self.advertised_routes] {
            sort_routes(routes.get_or_insert_default());
        }
        if self.connected_to_control {
            self.last_seen = None;
        }
    }

    /// Disconnects the device. From then on it has `lastSeen`.
    pub fn disconnect(&mut self, now: Timestamp) {
        if self.connected_to_control {
            self.connected_to_control = false;
            self.last_seen = Some(whole_second(now));
        }
    }
}

/// A time as the API sends `lastSeen`.
pub(super) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Rewrites a name as the server does, measured live: `AC-Upper` → `ac-upper`, `under_score` →
/// `under-score`, `a.b` → `a-b`.
pub(super) fn as_label(name: &str) -> String {
    let lower = name.to_ascii_lowercase().replace(['.', '_'], "-");
    // The live server drops dashes at the end, too.
    lower.trim_end_matches('-').to_owned()
}

/// Numerically, not alphabetically: `2.0.0.0/24` comes before `10.0.1.0/24`, IPv4 before IPv6.
pub(super) fn sort_routes(routes: &mut Vec<IpNet>) {
    // Clients compare with this order: Tailscale's Terraform provider tests for it.
    routes.sort_by_key(|route| (route.addr(), route.prefix_len()));
    routes.dedup();
}

impl Record {
    /// Removes expired attributes.
    pub fn drop_expired(&mut self, now: Timestamp) {
        self.attributes
            .retain(|_, attribute| attribute.expiry.is_none_or(|expiry| expiry > now));
    }

    /// The shape of the list response, plus `attributes` and `expiries`.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut json = serde_json::to_value(&self.device)?;
        let values = self.attributes.iter();
        json["attributes"] = values
            .map(|(key, it)| (key.clone(), it.value.clone()))
            .collect();
        let expiries: BTreeMap<_, _> = self
            .attributes
            .iter()
            .filter_map(|(key, attribute)| Some((key, attribute.expiry?)))
            .collect();
        json["expiries"] = serde_json::to_value(expiries)?;
        Ok(json)
    }

    /// Parses the output of [`Record::to_json`]. All fields but an id are optional.
    pub fn from_json(mut json: Value) -> serde_json::Result<Self> {
        let mut member = |name: &str| json.get_mut(name).map(Value::take).unwrap_or_default();
        let values: Option<BTreeMap<String, Value>> = serde_json::from_value(member("attributes"))?;
        let expiries =
            serde_json::from_value::<Option<BTreeMap<String, Timestamp>>>(member("expiries"))?
                .unwrap_or_default();
        // Removed, or they would count as other fields of the device and come back in the list.
        if let Some(fields) = json.as_object_mut() {
            fields.remove("attributes");
            fields.remove("expiries");
        }
        let mut device: Device = serde_json::from_value(json)?;
        device.normalize();
        let attributes = values.unwrap_or_default().into_iter().map(|(key, value)| {
            let expiry = expiries.get(&key).copied();
            (key, Attribute { value, expiry })
        });
        Ok(Self {
            attributes: attributes.collect(),
            device,
        })
    }
}
