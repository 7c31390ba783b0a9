//! From `kubectl apply` to the device, with its cost.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Stage, calls};

/// Each example with its allowed requests, one for each difference. Routes and exit node share a request,
/// and so do the attributes of a batch.
const EXAMPLES: [(&str, &str, &[&str]); 6] = [
    ("fra-router", "fra-router", &["tags", "key", "routes"]),
    ("amelie-laptop", "amelie-laptop", &["key", "PATCH"]),
    ("orders-db", "ip-10-0-3-7", &["tags", "key", "name", "ip"]),
    ("lobby-kiosk", "lobby-kiosk", &["authorized", "routes"]),
    ("ci-runner", "runner-7f", &["tags", "authorized"]),
    ("old-gateway", "old-gateway", &["routes"]),
];

fn desired(example: &str) -> Value {
    match example {
        "fra-router" => json!({
            "tags": ["tag:fra", "tag:router"],
            "keyExpiryDisabled": true,
            "enabledRoutes": ["0.0.0.0/0", "10.0.0.0/16", "::/0", "fd7a:10::/48"],
        }),
        "amelie-laptop" => json!({
            "keyExpiryDisabled": false,
            "attributes": {
                "custom:tier": "gold", "custom:patchLevel": 12, "custom:audited": true,
                // No policy targets this.
                "custom:note": "keep",
            },
            "expiries": {"custom:audited": "2035-01-01T00:00:00Z"},
        }),
        "orders-db" => json!({
            "name": "orders-db.tail1234.ts.net",
            "tags": ["tag:db"],
            "keyExpiryDisabled": true,
        }),
        "lobby-kiosk" => json!({"authorized": false, "enabledRoutes": []}),
        "ci-runner" => json!({"authorized": true, "tags": ["tag:ci"]}),
        "old-gateway" => json!({"enabledRoutes": []}),
        other => panic!("no desired state for {other}"),
    }
}

#[tokio::test]
async fn each_example_costs_one_request_for_each_difference_and_then_nothing() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let bystanders =
        || ["ben-phone", "nas"].map(|host| stage.simulator.device(&stage.node(host)).unwrap());
    let before = bystanders();

    for (example, hostname, costs) in EXAMPLES {
        let node = stage.node(hostname);
        stage.simulator.clear_requests();
        let file = format!(
            "{}/deploy/examples/{example}.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        stage.kubectl.ok(&["apply", "-f", &file]).await;
        let policy = format!("tsdp/{example}");
        stage
            .kubectl
            .wait_for("condition=Ready", &["-n", "network", &policy])
            .await;

        stage.device_has(&node, desired(example)).await;
        let expected: Vec<String> = costs
            .iter()
            .map(|cost| match *cost {
                "PATCH" => "PATCH /tailnet/-/device-attributes".to_owned(),
                setting => format!("POST /device/{node}/{setting}"),
            })
            .collect();
        assert_eq!(calls(&stage.simulator), expected, "{example}");
    }
    assert_eq!(
        stage.simulator.device("nRx7k2Qp4CNTRL").unwrap()["addresses"][0],
        "100.80.0.10"
    );
    assert_eq!(bystanders(), before, "devices that no policy names");

    stays_quiet(&stage).await;
}

/// Several polls later, only reads were sent and nothing was written to the cluster.
async fn stays_quiet(stage: &Stage) {
    stage.polls(2).await;
    stage.simulator.clear_requests();
    let before = resource_versions(stage).await;

    stage.polls(4).await;

    let laptop = stage.node("amelie-laptop");
    let attributes = format!("/api/v2/device/{laptop}/attributes");
    for request in stage.simulator.requests() {
        let read =
            request.path == "/api/v2/tailnet/-/devices?fields=all" || request.path == attributes;
        assert!(
            request.method == "GET" && read,
            "{} {}",
            request.method,
            request.path
        );
    }
    assert_eq!(resource_versions(stage).await, before);
}

async fn resource_versions(stage: &Stage) -> BTreeMap<String, Value> {
    let all = stage
        .kubectl
        .get(&["-A", "tsdp,tstn,events.v1.events.k8s.io"])
        .await;
    let objects = all["items"].as_array().unwrap().iter();
    let version = |object: &Value| {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        (name, object["metadata"]["resourceVersion"].clone())
    };
    objects.map(version).collect()
}
