use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::*;

/// Starts an apply of 75 changes with slow responses and waits until a few are made.
async fn begin(tailnet: &Tailnet) -> (Child, Vec<String>) {
    let policies = without_limit(&servers("keyExpiry: Enabled"));
    fs::write(tailnet.path("policies.yaml"), policies).unwrap();
    let slow = FaultSpec {
        path: Some("/api/v2/device/*/key".to_owned()),
        seconds: Some(0.4),
        ..FaultSpec::new(FaultKind::Delay)
    };
    tailnet.simulator.inject(slow).unwrap();
    let mut command = tailnet.tsdp(&["apply", "-f", "policies.yaml", "--yes"]);
    let mut child = command.spawn().unwrap();
    let mut made = Vec::new();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while made.len() < 3 {
        let line = lines.next_line().await.unwrap().unwrap();
        if line.contains(" keyExpiry: Disabled → Enabled") {
            made.push(line);
        }
    }
    (child, made)
}

async fn send(signal: &str, child: &Child) {
    let pid = child.id().unwrap().to_string();
    let mut kill = Command::new("kill");
    let killed = kill.args(["-s", signal, &pid]).status().await;
    assert!(killed.unwrap().success());
}

/// `Interrupted. 12 of 75 changes made, 63 not sent.`, as the number of changes that were made and not sent. Every
/// change has one end.
fn counted(summary: &str) -> (usize, usize) {
    let parts = summary.trim_start_matches("Interrupted. ").split(", ");
    let parts: Vec<(usize, &str)> = parts
        .map(|part| {
            let (count, what) = part.split_once(' ').unwrap();
            (count.parse().unwrap(), what.trim_end_matches('.'))
        })
        .collect();
    let count = |what: &str| {
        let part = parts.iter().find(|(_, part)| *part == what);
        part.map_or(0, |(count, _)| *count)
    };
    assert_eq!(parts[0].1, "of 75 changes made", "{summary}");
    let ends = [
        "already in sync",
        "failed",
        "not sent",
        "other than planned",
    ];
    let others: usize = ends.iter().map(|end| count(end)).sum();
    assert_eq!(parts[0].0 + others, 75, "{summary}");
    (parts[0].0, count("not sent"))
}

#[tokio::test]
async fn a_signal_ends_apply_after_the_in_flight_requests_with_an_exact_summary() {
    for signal in ["INT", "TERM"] {
        let tailnet = Tailnet::large().await;
        let (child, _) = begin(&tailnet).await;
        let sent = tailnet.simulator.requests().len();
        send(signal, &child).await;
        let ran = Ran::from(child.wait_with_output().await.unwrap());
        assert_eq!(ran.code, Some(130), "{ran:?}");
        let summary = ran.out.lines().last().unwrap();
        assert!(summary.starts_with("Interrupted. "), "{summary}");
        let after = tailnet.simulator.requests().len();
        // Requests that were already in flight when the signal arrived.
        assert!(after <= sent + 8, "{sent} {after}");
        let (made, not_sent) = counted(summary);
        assert_eq!(
            (made, made + not_sent),
            (writes(&tailnet).len(), 75),
            "{summary}"
        );
        let listed = format!("  {not_sent} devices keyExpiry\n");
        assert!(ran.err.contains(&listed), "{}", ran.err);
    }
}

#[tokio::test]
async fn after_a_signal_requests_that_wait_for_the_budget_are_not_sent() {
    let tailnet = Tailnet::large().await;
    let policies = without_limit(&servers("keyExpiry: Enabled"));
    fs::write(tailnet.path("policies.yaml"), policies).unwrap();
    let mut command = super::super::tailnet::program();
    command
        .args([
            "apply",
            "-f",
            "policies.yaml",
            "--yes",
            "--requests-per-second",
            "2",
        ])
        .current_dir(tailnet.folder.path())
        .env("TAILSCALE_API_KEY", API_KEY)
        .env("TAILSCALE_BASE_URL", tailnet.simulator.url());
    let mut child = command.spawn().unwrap();
    // The burst is 20. After it, requests wait for the budget.
    while tailnet.simulator.requests().len() < 22 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send("INT", &child).await;
    child.wait().await.unwrap();
    let requests = tailnet.simulator.requests().len();
    assert!(requests <= 23, "{requests}");
}

#[tokio::test]
async fn apply_ends_cleanly_when_its_output_is_closed() {
    let tailnet = Tailnet::large().await;
    let (mut child, _) = begin(&tailnet).await;
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let (made, _) = counted(ran.err.lines().last().unwrap());
    assert_eq!(made, writes(&tailnet).len());
    assert!(made < 75);
}

#[tokio::test]
async fn nothing_is_sent_if_the_plan_cannot_be_printed() {
    let tailnet = Tailnet::demo().await;
    let mut command = tailnet.tsdp(&["apply", "-f", EXAMPLES, "--yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("nothing was sent"), "{}", ran.err);
    assert_eq!(writes(&tailnet), [""; 0]);
}

#[tokio::test]
async fn a_second_signal_waits_for_no_response() {
    let tailnet = Tailnet::large().await;
    let policies = without_limit(&servers("keyExpiry: Enabled"));
    fs::write(tailnet.path("policies.yaml"), policies).unwrap();
    let hangs = FaultSpec {
        path: Some("/api/v2/device/*/key".to_owned()),
        seconds: Some(25.0),
        ..FaultSpec::new(FaultKind::Delay)
    };
    tailnet.simulator.inject(hangs).unwrap();
    let mut command = tailnet.tsdp(&["apply", "-f", "policies.yaml", "--yes"]);
    let mut child = command.spawn().unwrap();
    while writes_so_far(&tailnet) < 8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send("INT", &child).await;
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let reported = lines.next_line().await.unwrap().unwrap();
    assert!(
        reported.starts_with("Ending after the in-flight requests"),
        "{reported}"
    );
    let begin = Instant::now();
    send("INT", &child).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

fn writes_so_far(tailnet: &Tailnet) -> usize {
    let requests = tailnet.simulator.requests();
    requests
        .iter()
        .filter(|request| request.method != "GET")
        .count()
}
#[tokio::test]
async fn what_was_not_compared_before_a_signal_is_not_called_in_sync() {
    let tailnet = Tailnet::large().await;
    let spec = "postureAttributes: {custom:site: {string: a}}";
    let policies = without_limit(&servers(spec));
    fs::write(tailnet.path("policies.yaml"), policies).unwrap();
    let mut command = tailnet.tsdp(&["apply", "-f", "policies.yaml", "--yes"]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    while !lines
        .next_line()
        .await
        .unwrap()
        .unwrap()
        .starts_with("75 changes on 75 devices")
    {}
    // The engine compares nothing before it has read the attributes again.
    let slow = FaultSpec {
        path: Some("/api/v2/device/*/attributes".to_owned()),
        seconds: Some(0.5),
        ..FaultSpec::new(FaultKind::Delay)
    };
    tailnet.simulator.inject(slow).unwrap();
    // The list of the plan, and that of the engine.
    let lists = || {
        let requests = tailnet.simulator.requests();
        let lists = requests
            .iter()
            .filter(|request| request.path.contains("/devices"));
        lists.count()
    };
    while lists() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    send("INT", &child).await;
    let ran = Ran::from(child.wait_with_output().await.unwrap());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let summary = ran.out.lines().last().unwrap();
    let (made, not_sent) = counted(summary);
    assert_eq!(
        (made, made + not_sent),
        (writes(&tailnet).len(), 75),
        "{summary}"
    );
    assert!(!ran.err.contains("Failed:"), "{}", ran.err);
}
