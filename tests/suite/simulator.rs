//! The simulator alone: it is as strict as the API is known to be, and can be controlled.

mod auth;
mod effects;
mod faults;
mod identity;
mod invites;
mod program;
mod strictness;
mod switches;

use std::path::Path;

use serde_json::{Value, json};
use tsdp::simulator::{Options, Simulator};

/// A simulator and a client with a user's API key.
struct Api {
    simulator: Simulator,
    http: reqwest::Client,
}

/// A response. Text that is not JSON is a string, an empty body is `null`.
#[derive(Debug, PartialEq)]
struct Answered {
    status: u16,
    body: Value,
}

impl Api {
    /// The tailnet of these tests: a tagged router, a laptop of a user, an ephemeral runner, and a
    /// device that is shared in.
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let devices = json!([
            {
                "id": "1", "nodeId": "n1CNTRL", "hostname": "router",
                "name": "router.tail1.ts.net", "addresses": ["100.64.0.1", "fd7a:115c:a1e0::1"],
                "tags": ["tag:router"], "os": "linux", "keyExpiryDisabled": true,
                "advertisedRoutes": ["10.0.0.0/16"],
                "attributes": {"custom:tier": "gold", "custom:score": 7},
            },
            {
                "id": "2", "nodeId": "n2CNTRL", "hostname": "laptop",
                "name": "laptop.tail1.ts.net", "addresses": ["100.64.0.2", "fd7a:115c:a1e0::2"],
                "os": "macOS", "connectedToControl": false, "lastSeen": "2026-01-20T12:00:00Z",
            },
            {
                "id": "3", "nodeId": "n3CNTRL", "hostname": "runner", "isEphemeral": true,
                "name": "runner.tail1.ts.net", "addresses": ["100.64.0.3", "fd7a:115c:a1e0::3"],
                "tags": ["tag:runner", "tag:router"], "os": "linux",
            },
            {
                "id": "4", "nodeId": "n4CNTRL", "hostname": "shared", "isExternal": true,
                "name": "shared.tail2.ts.net", "addresses": ["100.64.0.4", "fd7a:115c:a1e0::4"],
            },
        ]);
        let options = Options {
            devices: serde_json::from_value(devices).unwrap(),
            ..options
        };
        // A second test in this process finds the provider installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            simulator: Simulator::start(options).await.unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api/v2/{path}", self.simulator.url());
        self.http.request(method.parse().unwrap(), url)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answered {
        let request = self.request(method, path).bearer_auth("tskey-api-any");
        send(match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        })
        .await
    }

    async fn get(&self, path: &str) -> Value {
        let answered = self.call("GET", path, None).await;
        assert_eq!(answered.status, 200, "GET {path}: {}", answered.body);
        answered.body
    }

    /// A write that must succeed.
    async fn post(&self, path: &str, body: Value) -> Value {
        let answered = self.call("POST", path, Some(body)).await;
        assert_eq!(answered.status, 200, "POST {path}: {}", answered.body);
        answered.body
    }

    /// The hostnames in the response to a list request.
    async fn listed(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("tailnet/-/devices{query}")).await;
        let devices = list["devices"].as_array().unwrap().iter();
        devices
            .map(|device| device["hostname"].as_str().unwrap().to_owned())
            .collect()
    }

    fn device(&self, id: &str) -> Value {
        self.simulator.device(id).unwrap()
    }
}

async fn send(request: reqwest::RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = match &*text {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    };
    Answered { status, body }
}

/// The same wrong type must not be in both: the simulator may use none of the client's types.
#[test]
fn the_simulator_shares_no_types_with_the_client() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulator");
    let mut folders = vec![sources];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let shared = line.contains("crate::") && !line.contains("crate::simulator");
                assert!(!shared, "{}: {line}", path.display());
            }
        }
    }
    assert!(files > 10, "found only {files} files");
}

fn refused(status: u16, message: &str) -> Answered {
    Answered {
        status,
        body: json!({"message": message}),
    }
}
