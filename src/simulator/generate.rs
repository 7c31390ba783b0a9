//! Generates a tailnet of varied devices, the same ones for the same seed.

use fastrand::Rng;
use serde_json::{Value, json};

use super::world::DOMAIN;

const SITES: [&str; 8] = ["fra", "ams", "lon", "nyc", "sfo", "sin", "syd", "gru"];
const USERS: [&str; 5] = [
    "amelie@example.com",
    "ben@example.com",
    "chiara@example.com",
    "dmitri@example.com",
    "eun-ji@example.com",
];
const VERSIONS: [&str; 4] = ["1.88.3", "1.92.0", "1.94.1", "1.96.2"];
/// Ids start above those of the API page.
const FIRST_ID: usize = 1_000_000;

/// The role of a device. It decides its tags, routes, and owner.
#[derive(Clone, Copy)]
enum Role {
    Router,
    ExitNode,
    Server,
    Runner,
    Laptop,
    Phone,
    Shared,
}

/// `count` devices in the shape of the list response: routers, exit nodes, servers, ephemeral runners,
/// laptops and phones of users, some with expired keys or pending device approval, and now and then one
/// that is shared in.
#[must_use]
pub fn generate(count: usize, seed: u64) -> Vec<Value> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|index| device(index, &mut rng)).collect()
}

fn device(index: usize, rng: &mut Rng) -> Value {
    let role = Role::of(index);
    let site = SITES[rng.usize(..SITES.len())];
    let hostname = format!("{site}-{}-{index:05}", role.name());
    let id = FIRST_ID + index;
    let connected = rng.u8(..10) < 8;
    // Keys of tagged devices do not expire by default.
    let expired = role.tag().is_none() && rng.u8(..10) == 0;
    // As in recorded answers: a key that no longer expires keeps its former expiry.
    let is_past = expired || matches!(role, Role::Runner);
    let mut device = json!({
        "id": id.to_string(),
        "nodeId": format!("n{id}CNTRL"),
        "hostname": hostname,
        "name": format!("{hostname}.{DOMAIN}"),
        "user": USERS[rng.usize(..USERS.len())],
        "os": role.os(rng),
        "clientVersion": VERSIONS[rng.usize(..VERSIONS.len())],
        "updateAvailable": rng.bool(),
        "addresses": addresses(index),
        "created": format!("2025-{:02}-{:02}T08:00:00Z", rng.u8(1..=12), rng.u8(1..=28)),
        // A device with an expired key cannot connect.
        "connectedToControl": connected && !expired,
        "expires": if is_past { "2025-12-31T00:00:00Z" } else { "2099-01-01T00:00:00Z" },
        "keyExpiryDisabled": role.tag().is_some(),
        // A few wait for device approval.
        "authorized": rng.u8(..20) > 0,
        "isEphemeral": matches!(role, Role::Runner),
        "tags": tags(role, site),
        "nodeKey": format!("nodekey:{:032x}", rng.u128(..)),
        "machineKey": format!("mkey:{:032x}", rng.u128(..)),
    });
    add_details(&mut device, rng);
    if !device["connectedToControl"].as_bool().unwrap_or_default() {
        device["lastSeen"] = json!("2026-01-20T12:00:00Z");
    }
    let routes = role.routes(index);
    device["enabledRoutes"] = if rng.bool() { json!(routes) } else { json!([]) };
    // A few have an approved route that they no longer advertise.
    let is_advertised = index % 40 != 7;
    device["advertisedRoutes"] = if is_advertised {
        json!(routes)
    } else {
        json!([])
    };
    if matches!(role, Role::Shared) {
        share_in(&mut device);
    }
    device
}

/// The fields that only `fields=all` shows.
fn add_details(device: &mut Value, rng: &mut Rng) {
    if device["os"] == "linux" {
        device["distro"] = json!({"name": "debian", "version": "13", "codeName": "trixie"});
    }
    device["sshEnabled"] = json!(rng.bool());
    device["postureIdentity"] = json!({"disabled": true});
    device["clientConnectivity"] = json!({
        "endpoints": [format!("203.0.113.{}:41641", rng.u8(1..255))],
        "mappingVariesByDestIP": rng.bool(),
        "latency": {"Frankfurt": {"preferred": true, "latencyMs": rng.u32(1_000..90_000) / 1_000}},
        "clientSupports": {
            "hairPinning": false, "ipv6": rng.bool(), "pcp": false, "pmp": false, "udp": true,
            "upnp": rng.bool(),
        },
    });
}

/// As the API shows devices of another tailnet: many fields are empty.
fn share_in(device: &mut Value) {
    let hostname = device["hostname"].as_str().unwrap_or_default();
    device["name"] = json!(format!("{hostname}.tail0b5e.ts.net"));
    device["user"] = json!("someone@example.org");
    device["isExternal"] = json!(true);
    // The live API sends an empty `created` for these, not an absent one.
    for field in ["created", "clientVersion", "machineKey"] {
        device[field] = json!("");
    }
}

/// One address for each index, outside of the reserved ranges.
fn addresses(index: usize) -> Value {
    let [.., high, low] = (index + 1).to_be_bytes();
    // From 100.64 to 100.95: below 100.100, where the reserved ranges begin.
    let middle = 64 + (index + 1) / 65_536 % 32;
    json!([
        format!("100.{middle}.{high}.{low}"),
        format!(
            "fd7a:115c:a1e0::{:x}:{:x}",
            index / 65_536 + 1,
            index % 65_536
        ),
    ])
}

fn tags(role: Role, site: &str) -> Vec<String> {
    let tags = role
        .tag()
        .map(|tag| vec![format!("tag:{tag}"), format!("tag:{site}")]);
    tags.unwrap_or_default()
}

impl Role {
    /// A mix that starts with one of each role, so that a small tailnet has all of them.
    fn of(index: usize) -> Self {
        match index % 20 {
            0 | 7 => Self::Router,
            1 => Self::ExitNode,
            2 | 8..=11 => Self::Server,
            3 | 12 => Self::Runner,
            4 | 13..=17 => Self::Laptop,
            6 if index < 20 => Self::Shared,
            _ => Self::Phone,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::ExitNode => "exit",
            Self::Server => "server",
            Self::Runner => "runner",
            Self::Laptop => "laptop",
            Self::Phone => "phone",
            Self::Shared => "shared",
        }
    }

    /// Machines are tagged, devices of people are not.
    fn tag(self) -> Option<&'static str> {
        match self {
            Self::Router | Self::ExitNode | Self::Server | Self::Runner => Some(self.name()),
            Self::Laptop | Self::Phone | Self::Shared => None,
        }
    }

    fn os(self, rng: &mut Rng) -> &'static str {
        match self {
            Self::Laptop => ["macOS", "windows", "linux"][rng.usize(..3)],
            Self::Phone => ["iOS", "android"][rng.usize(..2)],
            Self::Router | Self::ExitNode | Self::Server | Self::Runner | Self::Shared => "linux",
        }
    }

    fn routes(self, index: usize) -> Vec<String> {
        match self {
            Self::Router => vec![format!("10.{}.{}.0/24", index / 256 % 256, index % 256)],
            Self::ExitNode => vec!["0.0.0.0/0".into(), "::/0".into()],
            _ => Vec::new(),
        }
    }
}
