//! How much memory strangers and tenants can make a real controller process use.

use std::{fs, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{Controller, Stage};

const KIB_PER_MIB: u64 = 1024;
/// The memory limit of `deploy/deployment.yaml`.
const SHIPPED_LIMIT: u64 = 128;

/// A line of `/proc/PID/status` in MiB: `VmRSS` is the resident size, `VmHWM` its peak.
fn record(controller: &Controller, line: &str) -> u64 {
    let path = format!("/proc/{}/status", controller.pid());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|text| text.strip_prefix(line));
    let kib = line.unwrap().trim_matches(|c: char| !c.is_ascii_digit());
    kib.parse::<u64>().unwrap() / KIB_PER_MIB
}

/// An API with an endless list of devices. Returns its address.
async fn endless_api() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(never_end(stream));
        }
    });
    format!("http://{address}")
}

async fn never_end(mut stream: TcpStream) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let mut part = format!("{head}{{\"devices\":[");
    for number in 0.. {
        let device =
            json!({"nodeId": format!("n{number}CNTRL"), "hostname": "h", "tags": ["tag:a"]});
        part.push_str(&device.to_string());
        part.push(',');
        if part.len() > 32 * 1024 {
            if stream.write_all(part.as_bytes()).await.is_err() {
                return;
            }
            part.clear();
        }
    }
}

#[tokio::test]
async fn a_list_without_end_is_an_error_and_fits_the_shipped_memory_limit() {
    let stage = Stage::new().await;
    let spec = json!({"spec": {"apiURL": endless_api().await}}).to_string();
    let edit = ["patch", "tstn", "default", "--type=merge", "-p", &spec];
    stage.kubectl.ok(&edit).await;
    let controller = stage.controller().await;
    stage
        .policy("nas", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage.policy_reason("nas", "ApiError").await;
    let tailnet = stage.kubectl.get(&["tstn", "default"]).await;
    let says = tailnet["status"]["conditions"].to_string();
    assert!(says.contains("expected at most 48 MiB"), "{says}");
    let most = record(&controller, "VmHWM:");
    assert!(most < SHIPPED_LIMIT, "{most} MiB");
    println!("a list without end: at most {most} MiB resident");
}

#[tokio::test]
async fn policies_with_large_expressions_take_little_memory_and_denied_ones_none() {
    let stage = Stage::new().await;
    let rules = async |rules: &str| {
        let spec = format!("{{\"spec\": {{\"allowedPolicies\": {rules}}}}}");
        let edit = ["patch", "tstn", "default", "--type=merge", "-p", &spec];
        stage.kubectl.ok(&edit).await;
    };
    rules("[]").await;
    let controller = stage.controller().await;
    stage.polls(2).await;
    let before = record(&controller, "VmRSS:");
    let mut manifests = Vec::new();
    for number in 0..100 {
        // Expressions of the greatest size, all different.
        let expression = format!("device.hostname.matches('^[a-y]{{0,120}}x{{0,120}}{number}$')");
        let policy = json!({
            "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleDevicePolicy",
            "metadata": {"name": format!("p{number}"), "namespace": "network"},
            "spec": {
                "deviceSelector": {"tags": ["tag:db"], "expression": expression},
                "keyExpiry": "Disabled",
            },
        });
        manifests.push(policy.to_string());
    }
    stage.kubectl.apply(&manifests.join("\n---\n")).await;
    stage.policy_reason("p99", "NotAllowed").await;
    let denied = record(&controller, "VmRSS:");
    rules("[{}]").await;
    stage.policy_reason("p99", "NoDevices").await;
    let allowed = record(&controller, "VmRSS:");
    println!("resident: {before} MiB, with 100 denied policies {denied}, allowed {allowed}");
    assert!(denied - before <= 12, "{before} to {denied} MiB");
    assert!(allowed - before <= 24, "{before} to {allowed} MiB");
}

#[tokio::test]
async fn half_sent_webhooks_leave_health_and_memory_alone() {
    let stage = Stage::new().await;
    let args = ["--webhook-listen=127.0.0.1:0"];
    let controller = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    let before = record(&controller, "VmRSS:");
    let address = controller.webhook_address();
    let mut strangers = Vec::new();
    for _ in 0..622 {
        let Ok(mut stranger) = TcpStream::connect(&address).await else {
            continue;
        };
        let head = format!(
            "POST /default HTTP/1.1\r\nHost: a\r\nX: {}",
            "x".repeat(16_000)
        );
        let _ = stranger.write_all(head.as_bytes()).await;
        strangers.push(stranger);
    }
    for _ in 0..5 {
        let started = tokio::time::Instant::now();
        assert_eq!(controller.get("/readyz").await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
    let after = record(&controller, "VmHWM:");
    println!("resident: {before} MiB, with 622 half-sent webhooks at most {after}");
    assert!(after - before <= 16, "{before} to {after} MiB");
    // Each connection is closed after a while, whether or not it sends more.
    let mut open = strangers.len();
    for stranger in &mut strangers {
        let mut byte = [0];
        let end = tokio::time::timeout(Duration::from_secs(25), stranger.read(&mut byte));
        open -= usize::from(end.await.is_ok());
    }
    assert_eq!(open, 0);
}
