//! What the controller needs for 100, 1,000 and 10,000 devices with a policy each: the table of
//! docs/performance.md. `--ignored`, because it takes minutes and figures of a busy machine prove nothing:
//!
//! ```text
//! cargo build --release
//! TSDP_BIN=target/release/tsdp cargo test --test suite sizes -- --ignored --nocapture
//! ```
//!
//! `TSDP_SIZES=500,2000` measures other sizes.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Controller, Stage, eventually};

/// For the slowest size, on two cores that also run the API server and the simulator.
const LONG: Duration = Duration::from_mins(15);
/// Polls without a change, over which the idle cost is counted.
const IDLE_POLLS: usize = 5;
const KEY: &str = "tskey-api-sizes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and prints figures; see the head of this file"]
async fn sizes() {
    let sizes = std::env::var("TSDP_SIZES").unwrap_or_else(|_| "100,1000,10000".to_owned());
    for size in sizes.split(',') {
        measure(size.parse().unwrap()).await;
    }
}

async fn measure(size: usize) {
    let stage = Stage::without_resources(devices(size), KEY).await;
    stage.deploy().await;
    let crds = [
        "crd/tailscaledevicepolicies.tailnet.dev",
        "crd/tailscaletailnets.tailnet.dev",
    ];
    stage.kubectl.wait_for("condition=Established", &crds).await;
    stage.connect(KEY).await;
    let fast = json!({"spec": {
        "pollInterval": "10s", "requestBudget": {"perSecond": 1000, "burst": 1000},
    }});
    let patch = [
        "patch",
        "tstn",
        "default",
        "--type=merge",
        "-p",
        &fast.to_string(),
    ];
    stage.kubectl.ok(&patch).await;

    let controller = start(&stage).await;
    stage.polls(3).await;
    Usage::of(&controller).print(&format!("{size} devices, no policy"));

    let (before, since) = (Usage::of(&controller), Instant::now());
    stage.simulator.clear_requests();
    create_policies(&stage, size).await;
    all_ready(&controller, size).await;
    let requests = requests(&stage);
    let (writes, usage) = (status_writes(&controller).await, Usage::of(&controller));
    usage.since(&before).print(&format!(
        "{size} new policies, a change each, all Ready after {:.1} s: {requests}, {writes} status writes",
        since.elapsed().as_secs_f64(),
    ));

    stage.polls(2).await;
    stage.simulator.clear_requests();
    let before = Usage::of(&controller);
    for _ in 0..IDLE_POLLS {
        stage.polls(1).await;
    }
    let idle = status_writes(&controller).await - writes;
    Usage::of(&controller).since(&before).print(&format!(
        "{IDLE_POLLS} polls without a change: {}, {idle} status writes",
        self::requests(&stage),
    ));
    drop(controller);

    let since = Instant::now();
    let controller = start(&stage).await;
    all_ready(&controller, size).await;
    let writes = status_writes(&controller).await;
    Usage::of(&controller).print(&format!(
        "restart, compared after {:.1} s: {writes} status writes",
        since.elapsed().as_secs_f64(),
    ));
    stage.polls(2).await;
    Usage::of(&controller).print("two polls later");
}

/// Starts the controller with the environment of the image, which tells the allocator to give memory back.
async fn start(stage: &Stage) -> Controller {
    let dockerfile = std::fs::read_to_string("Dockerfile").unwrap();
    let line = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("ENV MALLOC"));
    let line = format!(
        "MALLOC{}",
        line.expect("the image sets the allocator's limits")
    );
    let env: Vec<(&str, &str)> = line
        .split(' ')
        .map(|variable| variable.split_once('=').unwrap())
        .collect();
    Controller::start(stage.kubeconfig(), &[], &env).await
}

fn devices(size: usize) -> Vec<Value> {
    let device = |number| json!({"hostname": format!("server-{number}"), "tags": ["tag:ci"]});
    (0..size).map(device).collect()
}

async fn create_policies(stage: &Stage, size: usize) {
    let kind = GroupVersionKind::gvk("tailnet.dev", "v1alpha1", "TailscaleDevicePolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "tailscaledevicepolicies");
    let api: Api<DynamicObject> = Api::namespaced_with(stage.client(), "network", &resource);
    let parameters = PostParams::default();
    stream::iter(0..size)
        .map(|number| {
            let policy = json!({
                "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleDevicePolicy",
                "metadata": {"name": format!("server-{number}"), "namespace": "network"},
                "spec": {"device": {"hostname": format!("server-{number}")}, "keyExpiry": "Disabled"},
            });
            let policy: DynamicObject = serde_json::from_value(policy).unwrap();
            let (api, parameters) = (&api, &parameters);
            async move { api.create(parameters, &policy).await.unwrap() }
        })
        .buffer_unordered(16)
        .for_each(|_| async {})
        .await;
}

/// Waits until the controller counts this many policies as in sync. Its own figure costs the machine less than
/// a watch of all statuses.
async fn all_ready(controller: &Controller, size: usize) {
    eventually(LONG, async || {
        let (_, page) = controller.get("/metrics").await;
        let ready = sum(&page, "tsdp_policies{", "reason=\"InSync\"");
        if ready == size {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        Err(format!("{ready} of {size} are ready"))
    })
    .await;
}

async fn status_writes(controller: &Controller) -> usize {
    let (_, page) = controller.get("/metrics").await;
    sum(&page, "tsdp_status_writes_total", "")
}

/// The sum of the series with this start and this part.
fn sum(page: &str, start: &str, part: &str) -> usize {
    let series = page
        .lines()
        .filter(|line| line.starts_with(start) && line.contains(part));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// `3 lists, 12 other reads, 1000 writes`
fn requests(stage: &Stage) -> String {
    let requests = stage.simulator.requests();
    let writes = requests.iter().filter(|it| it.method != "GET").count();
    let lists = requests
        .iter()
        .filter(|it| it.method == "GET" && it.path.contains("/devices"));
    let lists = lists.count();
    format!(
        "{lists} lists, {} other reads, {writes} writes",
        requests.len() - lists - writes
    )
}

/// What the process uses, as `/proc` has it.
struct Usage {
    resident: usize,
    /// The part of it that is not the program file.
    anonymous: usize,
    peak: usize,
    cpu: f64,
}

impl Usage {
    fn of(controller: &Controller) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", controller.pid()));
        let status = read("status").unwrap();
        let mib = |name: &str| -> usize {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim()
                .trim_end_matches(" kB")
                .parse::<usize>()
                .unwrap()
                / 1024
        };
        let stat = read("stat").unwrap();
        // After the name in parentheses, which may have spaces: the 12th and 13th value, in hundredths.
        let ticks = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2);
        let ticks: u32 = ticks.map(|it| it.parse::<u32>().unwrap()).sum();
        Self {
            resident: mib("VmRSS:"),
            anonymous: mib("RssAnon:"),
            peak: mib("VmHWM:"),
            cpu: f64::from(ticks) / 100.0,
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            ..self
        }
    }

    fn print(&self, what: &str) {
        let Self {
            resident,
            anonymous,
            peak,
            cpu,
        } = self;
        println!(
            "{what}: resident {resident} MiB ({anonymous} without the program), peak {peak} MiB, CPU {cpu:.2} s"
        );
    }
}
