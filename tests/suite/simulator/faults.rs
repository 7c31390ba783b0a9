//! Each kind of fault, and the log.

use serde_json::{Value, json};

use super::{Api, refused, send};

impl Api {
    /// Sends a request to `/_sim/`.
    async fn sim(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/_sim/{path}", self.simulator.url());
        let request = self.http.request(method.parse().unwrap(), url);
        let answered = send(request.body(body.to_string())).await;
        assert_eq!(answered.status, 200, "{method} {path}: {}", answered.body);
        answered.body
    }

    async fn fault(&self, fault: Value) {
        self.sim("POST", "faults", fault).await;
    }

    /// Sends a write that gets no complete response.
    async fn lose(&self, path: &str, body: Value) -> reqwest::Error {
        let request = self.request("POST", path).bearer_auth("tskey-api-any");
        match request.body(body.to_string()).send().await {
            Ok(response) => response.bytes().await.unwrap_err(),
            Err(error) => error,
        }
    }
}

#[tokio::test]
async fn injected_status_has_its_headers_and_body_for_the_given_times() {
    let api = Api::start().await;
    api.fault(json!({
        "kind": "status", "status": 429, "times": 2, "headers": {"Retry-After": "7"},
        "body": {"message": "slow down"}, "method": "POST", "path": "/api/v2/device/*/tags",
    }))
    .await;
    let tags = json!({"tags": ["tag:runner"]});
    let request = api
        .request("POST", "device/1/tags")
        .bearer_auth("tskey-api-any");
    let response = request.body(tags.to_string()).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({"message": "slow down"})
    );
    assert_eq!(
        api.get("device/1").await["tags"],
        json!(["tag:router"]),
        "no effect"
    );

    let faults = api.sim("GET", "faults", Value::Null).await;
    assert_eq!(
        (&faults[0]["hits"], &faults[0]["times"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        api.call("POST", "device/1/tags", Some(tags.clone())).await,
        refused(429, "slow down")
    );
    assert_eq!(
        api.call("POST", "device/1/tags", Some(tags)).await.status,
        200
    );
    assert_eq!(api.sim("GET", "faults", Value::Null).await, json!([]));
}

#[tokio::test]
async fn without_times_a_fault_stays_until_it_is_deleted() {
    let api = Api::start().await;
    api.fault(json!({"kind": "html"})).await;
    for _ in 0..3 {
        let answered = api.call("GET", "device/1", None).await;
        assert_eq!(answered.status, 502);
        assert!(
            answered
                .body
                .as_str()
                .unwrap()
                .starts_with("<!DOCTYPE html>")
        );
    }
    api.sim("DELETE", "faults", Value::Null).await;
    assert_eq!(api.call("GET", "device/1", None).await.status, 200);
}

#[tokio::test]
async fn lost_response_has_an_effect_only_if_the_fault_declares_it() {
    for (kind, effect) in [
        ("reset-before", false),
        ("reset-after", true),
        ("truncate", true),
    ] {
        let api = Api::start().await;
        api.fault(json!({"kind": kind, "method": "POST", "times": 1}))
            .await;
        api.lose("device/1/routes", json!({"routes": ["10.0.0.0/16"]}))
            .await;
        let enabled = if effect {
            json!(["10.0.0.0/16"])
        } else {
            json!([])
        };
        assert_eq!(
            api.get("device/1/routes").await["enabledRoutes"],
            enabled,
            "{kind}"
        );
        let log = api.simulator.requests();
        let status = if kind == "truncate" { Some(200) } else { None };
        assert_eq!((log[0].status, &*log[0].faults), (status, &[kind][..]));
    }
}

#[tokio::test]
async fn a_list_can_be_stale_short_or_of_the_wrong_shape() {
    let api = Api::start().await;
    api.fault(json!({"kind": "stale-list", "times": 1})).await;
    api.post("device/1/tags", json!({"tags": ["tag:runner"]}))
        .await;
    let stale = api.get("tailnet/-/devices").await;
    assert_eq!(stale["devices"][0]["tags"], json!(["tag:router"]));
    let fresh = api.get("tailnet/-/devices").await;
    assert_eq!(fresh["devices"][0]["tags"], json!(["tag:runner"]));

    api.fault(json!({"kind": "short-list", "times": 1})).await;
    assert_eq!(api.listed("").await, ["router", "laptop"]);
    assert_eq!(api.listed("").await.len(), 4);

    api.fault(json!({"kind": "wrong-shape", "times": 2})).await;
    let keyed = api.get("tailnet/-/devices").await;
    assert_eq!(keyed["2"]["hostname"], "laptop");
    assert_eq!(keyed.get("devices"), None);
    assert_eq!(api.get("device/1").await[0]["hostname"], "router");
}

#[tokio::test]
async fn delayed_response_comes_after_its_effect() {
    let api = Api::start().await;
    api.fault(json!({"kind": "delay", "seconds": 3600, "method": "POST"}))
        .await;
    let request = api
        .request("POST", "device/1/tags")
        .bearer_auth("tskey-api-any");
    let body = json!({"tags": ["tag:runner"]}).to_string();
    let waiting = tokio::spawn(request.body(body).send());
    while api.device("1")["tags"] != json!(["tag:runner"]) {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    assert_eq!(
        api.simulator.requests()[0].status,
        None,
        "there is no answer yet"
    );
}

#[tokio::test]
async fn invalid_fault_is_refused() {
    let api = Api::start().await;
    let url = format!("{}/_sim/faults", api.simulator.url());
    for (fault, says) in [
        (json!({"kind": "status"}), "a status fault needs \"status\""),
        (json!({"kind": "delay"}), "a delay needs \"seconds\""),
        (json!({"kind": "flood"}), "unknown variant `flood`"),
        (json!({"kind": "html", "time": 3}), "unknown field `time`"),
    ] {
        let answered = send(api.http.post(&url).body(fault.to_string())).await;
        let message = answered.body["message"].as_str().unwrap();
        assert!(
            answered.status == 400 && message.contains(says),
            "{fault}: {message}"
        );
    }
}

#[tokio::test]
async fn log_records_requests_and_responses() {
    let api = Api::start().await;
    let sent = json!({"tags": ["tag:unknown"]});
    let request = api
        .request("POST", "device/1/tags?x=1")
        .bearer_auth("tskey-api-canary");
    let request = request
        .header("X-Tailscale-Request-Id", "REQ-mine")
        .body(sent.to_string());
    assert_eq!(
        request.send().await.unwrap().headers()["x-tailscale-request-id"],
        "REQ-mine"
    );
    let answered = api.request("GET", "nothing").send().await.unwrap();
    let given = answered.headers()["x-tailscale-request-id"]
        .to_str()
        .unwrap();
    assert!(given.starts_with("REQ-20") && given.len() == 37, "{given}");

    let log = api.sim("GET", "requests", Value::Null).await;
    assert_eq!(log.as_array().unwrap().len(), 2, "{log:#}");
    let entry = &log[0];
    assert_eq!(
        (&entry["method"], &entry["status"]),
        (&json!("POST"), &json!(400))
    );
    assert_eq!(
        (&entry["path"], &entry["body"]),
        (&json!("/api/v2/device/1/tags?x=1"), &sent)
    );
    assert_eq!(entry["requestId"], "REQ-mine");
    assert!(entry["time"].is_string());
    assert_eq!(log[1]["requestId"], given);
    assert!(!log.to_string().contains("canary"));
    api.sim("DELETE", "requests", Value::Null).await;
    assert_eq!(api.sim("GET", "requests", Value::Null).await, json!([]));
}

#[tokio::test]
async fn listed_devices_recreate_the_same_tailnet() {
    let api = Api::start().await;
    api.sim("PATCH", "devices/1", json!({"tags": ["tag:a"]}))
        .await;
    api.sim("DELETE", "devices/n2CNTRL", Value::Null).await;
    api.sim("POST", "devices", json!({"hostname": "new"})).await;
    let shown = api.sim("GET", "devices", Value::Null).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), shown.to_string()).unwrap();
    let devices = tsdp::simulator::read_devices(file.path()).unwrap();
    let options = tsdp::simulator::Options {
        devices,
        ..Default::default()
    };
    let again = tsdp::simulator::Simulator::start(options).await.unwrap();
    assert_eq!(json!(again.devices().unwrap()), shown["devices"]);
}
