//! A tailnet of 300 devices, and the policies for it. All is in sync from the start.

use serde_json::{Value, json};

/// Sites with a router each.
pub const SITES: [&str; 8] = ["ams", "cdg", "dub", "fra", "iad", "sin", "syd", "waw"];

pub const POLICY_FILE: &str = r#"{"tagOwners": {
    "tag:server": [], "tag:db": [], "tag:kiosk": [], "tag:router": [], "tag:audited": []}}"#;

pub const SERVERS: &str =
    r#"{deviceSelector: {tags: ["tag:server"]}, tags: ["tag:server"], keyExpiry: Disabled}"#;
pub const DATABASES: &str =
    r#"{deviceSelector: {tags: ["tag:db"]}, tags: ["tag:db"], keyExpiry: Disabled}"#;
pub const LAPTOPS: &str = r#"{deviceSelector: {users: ["*@example.com"]}, authorized: true}"#;
pub const KIOSKS: &str =
    r#"{deviceSelector: {tags: ["tag:kiosk"]}, keyExpiry: Disabled, enforcement: Approve}"#;

/// A policy for the router of a site.
pub fn router(site: &str) -> String {
    format!(
        "{{device: {{hostname: {site}-router}}, tags: [tag:router], enabledRoutes: [{}]}}",
        route(site)
    )
}

fn route(site: &str) -> String {
    let number = SITES.iter().position(|it| *it == site).unwrap();
    format!("10.{number}.0.0/16")
}

/// A device with a name and a nodeId of its own.
fn device(hostname: &str, more: &Value) -> Value {
    let node = hostname.replace('-', "");
    let mut device = json!({
        "hostname": hostname, "nodeId": format!("n{node}CNTRL"), "keyExpiryDisabled": true,
        "os": "linux", "expires": "2027-06-01T00:00:00Z", "created": "2025-06-01T00:00:00Z",
    });
    let fields = device.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    device
}

/// The router of a site under a nodeId.
pub fn router_device(site: &str, node: &str) -> Value {
    let more = json!({
        "nodeId": node, "tags": ["tag:router"], "advertisedRoutes": [route(site)],
        "enabledRoutes": [route(site)],
    });
    device(&format!("{site}-router"), &more)
}

fn many(count: usize, name: &str, tag: &str) -> Vec<Value> {
    (1..=count)
        .map(|number| device(&format!("{name}-{number:03}"), &json!({"tags": [tag]})))
        .collect()
}

/// A laptop: the keys of the first two have expired, which does not matter while key expiry is disabled.
fn laptop(number: usize) -> Value {
    let forgotten = number <= 2;
    let expires = if forgotten {
        "2026-01-01T00:00:00Z"
    } else {
        "2027-06-01T00:00:00Z"
    };
    let more = json!({
        "user": format!("user{number}@example.com"), "os": "macOS", "expires": expires,
        "keyExpiryDisabled": forgotten,
    });
    device(&format!("laptop-{number:03}"), &more)
}

pub fn devices() -> Vec<Value> {
    let routers = SITES.map(|site| router_device(site, &format!("n{site}router1CNTRL")));
    let devices = many(150, "srv", "tag:server").into_iter();
    let devices: Vec<Value> = devices
        .chain(many(60, "db", "tag:db"))
        .chain(many(12, "kiosk", "tag:kiosk"))
        .chain((1..=70).map(laptop))
        .chain(routers)
        .collect();
    assert_eq!(devices.len(), 300);
    devices
}
