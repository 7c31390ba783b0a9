//! Webhooks: which ones start a poll.

use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    docs::blocks,
    support::{Controller, Stage},
};

const SECRET: &str = "tskey-webhook-e2e";

/// Sends a webhook as Tailscale does, signed with `secret` at `time`. Returns the status of the response.
pub async fn send(controller: &Controller, tailnet: &str, secret: &str, time: Timestamp) -> u16 {
    let body = json!([{
        "timestamp": "2026-01-20T12:00:00Z", "version": 1, "type": "nodeCreated",
        "tailnet": "example.com", "message": "Node late created", "data": {"nodeID": "nLateCNTRL"},
    }])
    .to_string();
    let time = time.as_second();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let hex: Vec<_> = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let url = format!("http://{}/webhook/{tailnet}", controller.webhook_address());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(url).body(body);
    let signature = format!("t={time},v1={}", hex.concat());
    let answer = request.header("Tailscale-Webhook-Signature", signature);
    let answer = answer.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.text().await.unwrap(), "", "the response is empty");
    status
}

/// The manifests of the pages that lead here are accepted.
async fn the_pages_are_right(stage: &Stage) {
    let pages = [
        include_str!("../../../docs/credentials.md"),
        include_str!("../../../docs/webhooks.md"),
    ];
    for page in pages {
        let blocks = blocks(page, "yaml");
        assert_eq!(blocks.len(), 1);
        let dry = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
        let output = stage.kubectl.run(&dry, &blocks[0]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{error}\n{}", blocks[0]);
    }
}

fn lists(stage: &Stage) -> usize {
    let requests = stage.simulator.requests();
    requests
        .iter()
        .filter(|request| request.path.starts_with("/api/v2/tailnet/-/devices"))
        .count()
}

#[tokio::test]
async fn a_signed_webhook_starts_a_poll_of_its_tailnet_and_any_other_is_ignored() {
    let stage = Stage::new().await;
    the_pages_are_right(&stage).await;
    let mut connection: Value = serde_json::from_str(&stage.tailnet_manifest()).unwrap();
    connection["spec"]["pollInterval"] = json!("1h");
    stage.kubectl.apply(&connection.to_string()).await;
    let secret = json!({"stringData": {"webhook_secret": SECRET}}).to_string();
    let patch = [
        "patch",
        "secret",
        "tailscale",
        "-n",
        "tsdp-system",
        "-p",
        &secret,
    ];
    stage.kubectl.ok(&patch).await;
    stage
        .policy("late", "{device: {hostname: late}, keyExpiry: Disabled}")
        .await;
    let arguments = ["--webhook-listen=127.0.0.1:0", "--log=info,tsdp=debug"];
    let controller = Controller::ready(stage.kubeconfig(), &arguments, &[]).await;
    let late = ["-n", "network", "tsdp/late"];
    let absent = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}=DeviceNotFound";
    stage.kubectl.wait_for(absent, &late).await;
    let device = json!({"hostname": "late", "nodeId": "nLateCNTRL", "keyExpiryDisabled": false});
    stage.simulator.add_device(device).unwrap();
    stage.simulator.clear_requests();

    let now = Timestamp::now();
    let minutes = |minutes: i64| now + jiff::SignedDuration::from_mins(minutes);
    for (tailnet, secret, time) in [
        ("default", "tskey-webhook-other", now),
        ("default", SECRET, minutes(-6)),
        ("default", SECRET, minutes(6)),
        ("elsewhere", SECRET, now),
    ] {
        assert_eq!(send(&controller, tailnet, secret, time).await, 401);
    }
    assert_eq!(send(&controller, "default", SECRET, now).await, 200);

    stage
        .device_has("nLateCNTRL", json!({"keyExpiryDisabled": true}))
        .await;
    stage.kubectl.wait_for("condition=Ready", &late).await;
    assert_eq!(lists(&stage), 1);
    let log = controller.log();
    assert!(!log.contains("tskey-") && !log.contains("v1="), "{log}");
}
