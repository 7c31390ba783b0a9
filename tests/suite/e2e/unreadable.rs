//! Objects that the API server accepted and this version cannot read, as under older definitions.

use serde_json::json;

use super::approve::shell;
use crate::support::{API_KEY, Stage, calls, eventually};

#[tokio::test]
async fn an_unreadable_object_is_reported_and_stops_no_watch() {
    let stage = Stage::new().await;
    for crd in ["tailscaledevicepolicies", "tailscaletailnets"] {
        let lax = json!([{
            "op": "replace",
            "path": "/spec/versions/0/schema/openAPIV3Schema",
            "value": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"status": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "default": {"observedGeneration": -1},
                }},
            },
        }]);
        let crd = format!("crd/{crd}.tailnet.dev");
        stage
            .kubectl
            .ok(&["patch", &crd, "--type=json", "-p", &lax.to_string()])
            .await;
    }
    let broken = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: broken}, spec: 7}";
    // The API server applies a changed definition a moment later.
    eventually(std::time::Duration::from_secs(20), async || {
        let output = stage.kubectl.run(&["apply", "-f", "-"], broken).await;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
    .await;
    stage
        .policy("before", "{device: {hostname: nas}, tags: tag:db}")
        .await;

    let controller = stage.controller().await;
    stage.policy("later", "{device: 5}").await;
    stage
        .policy(
            "elsewhere",
            "{tailnetRef: {name: broken}, device: {hostname: nas}}",
        )
        .await;
    stage
        .policy("good", "{device: {hostname: nas}, keyExpiry: Disabled}")
        .await;

    let nas = stage.node("nas");
    stage
        .policy_says("good", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    stage
        .policy_says(
            "before",
            "False Invalid (Stalled): the object cannot be parsed: Invalid type string \"tag:db\". \
             Expected a sequence",
        )
        .await;
    stage.policy_reason("later", "Invalid").await;
    stage
        .policy_says(
            "elsewhere",
            "False Invalid (Stalled): The TailscaleTailnet 'broken' cannot be parsed: Invalid type integer \
             `7`. Expected struct TailscaleTailnetSpec. Nothing is sent. Correct it.",
        )
        .await;
    controller.readyz_says(200, "ok").await;
    the_command_line_does_without_it(&stage).await;
    let version = async || {
        stage.kubectl.get(&["-n", "network", "tsdp/later"]).await["metadata"]["resourceVersion"]
            .clone()
    };
    let before = version().await;
    stage.polls(3).await;
    assert_eq!(
        version().await,
        before,
        "its status was written again and again"
    );

    // Once corrected, it is applied.
    stage
        .policy("before", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage
        .policy_says("before", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    stage
        .device_has(&nas, json!({"tags": ["tag:db"], "keyExpiryDisabled": true}))
        .await;

    a_tailnet_that_becomes_unreadable(&stage, &nas).await;
}

/// One object that cannot be parsed does not block a command that does not need it.
async fn the_command_line_does_without_it(stage: &Stage) {
    let (code, list, lacks) = shell(stage, "tsdp approve").await;
    assert_eq!((code, list.as_str()), (0, "Nothing is pending approval.\n"));
    let lacks: Vec<&str> = lacks
        .lines()
        .filter_map(|line| line.split_once(", which cannot be parsed: "))
        .map(|(which, _)| which)
        .collect();
    let of = |name: &str| format!("tsdp: the list lacks network/{name}");
    assert_eq!(lacks, [of("before"), of("later")]);

    let plan = async |tailnet: &str| {
        let url = stage.simulator.url();
        let plan = format!(
            "TAILSCALE_API_KEY={API_KEY} tsdp plan --from-cluster --base-url {url} --tailnet-ref {tailnet}"
        );
        shell(stage, &plan).await
    };
    let (_, shown, error) = plan("default").await;
    assert!(shown.contains("network/before"), "{shown}{error}");
    let (code, _, error) = plan("broken").await;
    let unknown = "tsdp: the TailscaleTailnet broken cannot be parsed: ";
    assert!(code == 1 && error.starts_with(unknown), "{error}");
}

/// The tailnet's rules are unknown then: nothing is sent, the status says so, and the records of a newer
/// release stay.
async fn a_tailnet_that_becomes_unreadable(stage: &Stage, nas: &str) {
    let patch = async |subresource: &str, patch: &str| {
        let args = [
            "patch",
            "tstn/default",
            subresource,
            "--type=merge",
            "-p",
            patch,
        ];
        let args = args.iter().filter(|arg| !arg.is_empty());
        stage.kubectl.ok(&args.copied().collect::<Vec<_>>()).await;
    };
    let newer = r#"{"status": {"ofANewerRelease": {"count": 3}}}"#;
    patch("--subresource=status", newer).await;
    patch("", r#"{"spec": {"protectedDevices": {"newer": true}}}"#).await;
    let tailnet = ["tstn/default"];
    stage.kubectl.wait_for("condition=Stalled", &tailnet).await;
    let object = stage.kubectl.get(&tailnet).await;
    assert_eq!(object["status"]["ofANewerRelease"], json!({"count": 3}));
    let ready = object["status"]["conditions"].to_string();
    assert!(
        ready.contains("The TailscaleTailnet 'default' cannot be parsed: "),
        "{ready}"
    );
    stage.policy_reason("good", "Invalid").await;
    stage.simulator.clear_requests();
    let drift = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(nas, &drift).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(calls(&stage.simulator), Vec::<String>::new());

    patch("", r#"{"spec": {"protectedDevices": null}}"#).await;
    stage
        .device_has(nas, json!({"keyExpiryDisabled": true}))
        .await;
    stage.policy_reason("good", "InSync").await;
}

/// A device of which the API reports the tags as null: its policy waits, and the others go on.
#[tokio::test]
async fn a_device_that_cannot_be_read_concerns_only_what_depends_on_the_field() {
    let stage = Stage::new().await;
    let (nas, router) = (stage.node("nas"), stage.node("fra-router"));
    let odd = json!({ (nas.clone()): {"tags": null} });
    stage
        .simulator
        .switch(|switches| switches.reported_as = serde_json::from_value(odd).unwrap());
    let _controller = stage.controller().await;
    stage
        .policy("tagged", "{device: {hostname: nas}, tags: [\"tag:db\"]}")
        .await;
    // By its id: under a name it would matter whether someone else has signed in, which tags would show.
    let other = format!("{{device: {{nodeId: {nas}}}, keyExpiry: Disabled}}");
    stage.policy("other", &other).await;
    stage
        .policy(
            "router",
            "{device: {hostname: fra-router}, keyExpiry: Disabled}",
        )
        .await;
    stage.policy_reason("tagged", "DeviceUnreadable").await;
    for (policy, label, node) in [("other", "nas", &nas), ("router", "fra-router", &router)] {
        let expected = format!("True InSync: {label} ({node}) is in sync.");
        stage.policy_says(policy, &expected).await;
    }
    assert!(
        !calls(&stage.simulator)
            .iter()
            .any(|call| call.ends_with("/tags"))
    );
    let tailnet = stage.kubectl.get(&["tstn", "default"]).await;
    let expected = json!([{"device": nas, "fields": ["tags"]}]);
    assert_eq!(tailnet["status"]["unreadableDevices"], expected);
    assert_eq!(tailnet["status"]["unreadableDevicesTotal"], 1);
    let uid = &tailnet["metadata"]["uid"];
    eventually(std::time::Duration::from_secs(20), async || {
        let events = stage.kubectl.get(&["events.events.k8s.io", "-A"]).await;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let about = events
            .iter()
            .filter(|event| event["regarding"]["uid"] == *uid);
        let mut reasons: Vec<_> = about.map(|event| event["reason"].clone()).collect();
        reasons.sort_by_key(ToString::to_string);
        if reasons == [json!("Connected"), json!("DeviceUnreadable")] {
            Ok(())
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await;
}
