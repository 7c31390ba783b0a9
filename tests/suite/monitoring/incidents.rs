//! A tailnet in which things go wrong, so that every panel has something to show.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tsdp::simulator::{FaultKind, FaultSpec};

use crate::{
    e2e::webhook,
    support::{API_KEY, Controller, Stage, demo_devices, eventually},
};

const SECRET: &str = "tskey-webhook-e2e";
const DRIFTER: &str = "fra-router";

/// Policies that are in sync, held, observed, overridden, without a device, and of a tailnet without a credential.
const POLICIES: [(&str, &str); 7] = [
    (
        "router",
        "{device: {hostname: fra-router}, tags: [tag:router]}",
    ),
    ("nas", "{device: {hostname: nas}, keyExpiry: Disabled}"),
    (
        "approve",
        "{device: {hostname: lobby-kiosk}, keyExpiry: Disabled, enforcement: Approve}",
    ),
    (
        "observe",
        "{device: {hostname: old-gateway}, keyExpiry: Disabled, enforcement: Observe}",
    ),
    (
        "missing",
        "{device: {hostname: nosuch}, keyExpiry: Disabled}",
    ),
    ("odd", "{device: {hostname: ben-phone}, tags: [tag:db]}"),
    (
        "fleet",
        "{deviceSelector: {hostnames: [\"load-*\"], trustClaims: true}, keyExpiry: Disabled}",
    ),
];

pub struct Incidents {
    pub stage: Stage,
    pub controller: Controller,
    drifted: u32,
}

impl Incidents {
    /// Starts everything. Returns once the policies report what is wrong with them.
    pub async fn begin() -> Self {
        let joined = (0..40).map(|number| {
            json!({
                "hostname": format!("load-{number}"), "nodeId": format!("nLoad{number}CNTRL"),
                "user": "ops@example.com", "os": "linux", "keyExpiryDisabled": false,
            })
        });
        let devices = demo_devices().into_iter().chain(joined).collect();
        let stage = Stage::with(devices, API_KEY).await;
        stage
            .secret(&json!({"api_key": API_KEY, "webhook_secret": SECRET}))
            .await;
        stage.max_changed_devices("20").await;
        let odd = json!({ (stage.node("ben-phone")): {"tags": null} });
        stage
            .simulator
            .switch(|switches| switches.reported_as = serde_json::from_value(odd).unwrap());
        let without_secret = json!({
            "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleTailnet",
            "metadata": {"name": "lab"}, "spec": {"credentialsSecret": {"name": "nosuch"}},
        });
        stage.kubectl.apply(&without_secret.to_string()).await;
        let arguments = ["--webhook-listen=127.0.0.1:0"];
        let controller = Controller::ready(stage.kubeconfig(), &arguments, &[]).await;
        Self {
            stage,
            controller,
            drifted: 0,
        }
    }

    /// Applies the policies, and waits for what they report.
    pub async fn declare(&self) {
        for (name, spec) in POLICIES {
            self.stage.policy(name, spec).await;
        }
        for (name, reason) in [
            ("router", "InSync"),
            ("approve", "AwaitingApproval"),
            ("observe", "Observed"),
            ("missing", "DeviceNotFound"),
            ("odd", "DeviceUnreadable"),
            ("fleet", "LimitHeld"),
        ] {
            self.stage.policy_reason(name, reason).await;
        }
    }

    /// Someone changes what a policy declares, and the controller changes it back.
    pub async fn drift(&mut self) {
        self.drifted += 1;
        let id = self.stage.node(DRIFTER);
        // Another field after the second time: the same one, changed a third time, would be contested.
        let (patch, restored) = if self.drifted <= 2 {
            (json!({"tags": ["tag:db"]}), json!({"tags": ["tag:router"]}))
        } else {
            return;
        };
        self.stage.simulator.patch_device(&id, &patch).unwrap();
        self.stage.device_has(&id, restored).await;
    }

    /// The API answers 429 a few times.
    pub async fn limit_rate(&self) {
        let mut fault = FaultSpec::new(FaultKind::Status);
        fault.status = Some(429);
        fault.times = Some(2);
        fault.headers = BTreeMap::from([("Retry-After".to_owned(), "1".to_owned())]);
        self.stage.simulator.inject(fault).unwrap();
        eventually(Duration::from_secs(20), async || {
            let (_, page) = self.controller.get("/metrics").await;
            let limited = "tsdp_api_rate_limited_total{tailnet=\"default\"} 2";
            page.contains(limited).then_some(()).ok_or(page)
        })
        .await;
    }

    /// One webhook is right, and many are not.
    pub async fn webhooks(&self) {
        for _ in 0..8 {
            let forged = "tskey-webhook-other";
            webhook::send(&self.controller, "default", forged, Timestamp::now()).await;
        }
        let status = webhook::send(&self.controller, "default", SECRET, Timestamp::now()).await;
        assert_eq!(status, 200);
    }

    /// Goes on for so many seconds: edits of a policy, and webhooks.
    pub async fn go_on(&self, seconds: u64) {
        let pause = Duration::from_secs(10);
        for round in 0..seconds / pause.as_secs() {
            let expiry = if round % 2 == 0 {
                "Enabled"
            } else {
                "Disabled"
            };
            let spec = format!("{{device: {{hostname: nas}}, keyExpiry: {expiry}}}");
            self.stage.policy("nas", &spec).await;
            self.webhooks().await;
            tokio::time::sleep(pause).await;
        }
    }
}
