//! Metrics with the names of policies, which an operator asks for.

use std::time::Duration;

use crate::support::{Controller, Stage, eventually};

/// The lines about the devices of policies, sorted, as Prometheus scrapes them.
async fn scraped(controller: &Controller) -> Vec<String> {
    let (_, metrics) = controller.get("/metrics").await;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("tsdp_policy_m"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn series(name: &str, devices: usize) -> String {
    format!("tsdp_policy_matched_devices{{namespace=\"network\",name=\"{name}\"}} {devices}")
}

#[tokio::test]
async fn matched_devices_of_policies_are_scraped_up_to_a_bound() {
    let stage = Stage::new().await;
    let args = ["--policy-metrics=1"];
    let controller = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    stage
        .policy("first", "{device: {hostname: nas}, authorized: true}")
        .await;
    stage.policy_reason("first", "InSync").await;
    stage
        .policy(
            "second",
            "{deviceSelector: {tags: [tag:nothing]}, authorized: true}",
        )
        .await;
    stage.policy_reason("second", "NoDevices").await;
    let omitted = |count: usize| format!("tsdp_policy_metrics_omitted {count}");
    assert_eq!(scraped(&controller).await, [series("first", 1), omitted(1)]);

    stage
        .kubectl
        .ok(&["delete", "tsdp", "-n", "network", "first", "--wait"])
        .await;
    for _ in 0..100 {
        if scraped(&controller).await == [series("second", 0), omitted(0)] {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{:?}", scraped(&controller).await);
}

#[tokio::test]
async fn series_of_a_tailnet_end_with_its_resource() {
    let stage = Stage::new().await;
    let controller = stage.controller().await;
    let lab = stage.tailnet_manifest().replace(r#""default""#, r#""lab""#);
    stage.kubectl.apply(&lab).await;
    let scrape_has = async |series: &str, expected: bool| {
        eventually(Duration::from_secs(30), async || {
            let (_, page) = controller.get("/metrics").await;
            (page.contains(series) == expected)
                .then_some(())
                .ok_or(page)
        })
        .await;
    };
    for series in [
        "tsdp_devices{",
        "tsdp_last_successful_poll_timestamp_seconds{",
    ] {
        scrape_has(&format!("{series}tailnet=\"lab\"}}"), true).await;
    }
    stage.kubectl.ok(&["delete", "tstn", "lab", "--wait"]).await;
    scrape_has("tailnet=\"lab\"", false).await;
    scrape_has("tsdp_devices{tailnet=\"default\"}", true).await;
    // What requests of the deleted tailnet still end now brings nothing back.
    stage.polls(3).await;
    scrape_has("tailnet=\"lab\"", false).await;
}
