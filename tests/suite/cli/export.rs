use std::fs;

use serde_json::json;
use tsdp::simulator::{FaultKind, FaultSpec};

use super::tailnet::{Tailnet, demo_devices};

#[tokio::test]
async fn exported_tailnet_of_300_devices_has_an_empty_plan() {
    let tailnet = Tailnet::large().await;
    let own = tailnet.simulator.devices().unwrap();
    let own = own
        .iter()
        .filter(|device| device["isExternal"] != true)
        .count();
    for grouped in [&[][..], &["--group-by", "tag"]] {
        tailnet.simulator.clear_requests();
        let export = tailnet.run(&[&["export"], grouped].concat()).await;
        let message = format!("policies for {own} devices");
        assert!(export.err.contains(&message), "{}", export.err);
        assert_eq!(
            tailnet.requests().len(),
            1 + own,
            "one list, and a request a device"
        );
        let manifests = export.ok();
        assert!(manifests.contains("# Not declared: exitNode: only "));

        let plan = tailnet.run_with(&["plan", "-f", "-"], &manifests).await;
        let reported = plan.ok();
        assert!(reported.starts_with("Nothing to change; "), "{reported}");
        let requests = tailnet.requests();
        assert!(requests.iter().all(|request| request.starts_with("GET ")));
    }
}

#[tokio::test]
async fn the_manifest_has_every_setting_and_comments_name_the_unsupported_ones() {
    let device = json!({
        "nodeId": "nRx7k2Qp4CNTRL", "hostname": "fra\nspec: {suspend: true}\n#\u{1b}[31m",
        "name": "fra-router.tail1234.ts.net", "os": "linux", "user": "ops@example.com",
        "addresses": ["100.90.1.7", "fd7a:115c:a1e0::1:7"], "keyExpiryDisabled": true,
        "tags": ["tag:fra", "tag:router"],
        "enabledRoutes": ["10.0.0.0/16", "0.0.0.0/0", "::/0"],
        "attributes": {
            "custom:tier": "gold", "custom:on": "on", "custom:patch": 12, "custom:audited": true,
            "node:os": "linux",
        },
        "expiries": {"custom:audited": "2035-01-01T00:00:00Z"},
    });
    let waiting = json!({
        "nodeId": "nWaiting", "hostname": "kiosk", "name": "kiosk.tail1234.ts.net", "os": "windows",
        "user": "kiosk@example.com", "authorized": false, "enabledRoutes": ["::/0"],
        "addresses": ["100.90.1.8"],
    });
    let tailnet = Tailnet::of(vec![device, waiting]).await;
    let fields = "tags,keyExpiry,enabledRoutes,exitNode,postureAttributes,authorized,name,ipv4";
    let args = [
        "export",
        "--fields",
        fields,
        "--namespace",
        "network",
        "--tailnet-ref",
        "lab",
    ];
    let manifests = tailnet.run(&args).await.ok();
    insta::assert_snapshot!(manifests, @r#"
    # Written by: tsdp export --fields tags,keyExpiry,enabledRoutes,exitNode,postureAttributes,authorized,name,ipv4
    ---
    # fra-router.tail1234.ts.net, node nRx7k2Qp4CNTRL, hostname fra\u{a}spec: {suspend: true}\u{a}#\u{1b}[31m, linux, tagged
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: fra-router
      namespace: network
    spec:
      tailnetRef: {name: lab}
      device: {nodeId: nRx7k2Qp4CNTRL}
      authorized: true
      tags: ["tag:fra", "tag:router"]
      keyExpiry: Disabled
      enabledRoutes: ["10.0.0.0/16"]
      exitNode: true
      postureAttributes:
        custom:audited: {boolean: true, expiry: "2035-01-01T00:00:00Z"}
        custom:on: {string: "on"}
        custom:patch: {integer: 12}
        custom:tier: {string: gold}
      name: fra-router
      ipv4: "100.90.1.7"
    ---
    # kiosk.tail1234.ts.net, node nWaiting, hostname kiosk, windows, of kiosk@example.com
    # Not declared: exitNode: only ::/0 of the two routes of an exit node is enabled
    # Not declared: authorized: the device is not authorized. Declare authorized: true to authorize it
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: kiosk
      namespace: network
    spec:
      tailnetRef: {name: lab}
      device: {nodeId: nWaiting}
      keyExpiry: Enabled
      name: kiosk
      ipv4: "100.90.1.8"
    "#);
    let plan = ["plan", "-f", "-"];
    tailnet.run_with(&plan, &manifests).await.ok();
}

#[tokio::test]
async fn devices_with_equal_tags_share_their_common_settings() {
    let server = |number: usize, route: &str| {
        json!({
            "nodeId": format!("n{number}CNTRL"), "hostname": format!("server-{number}"),
            "name": format!("server-{number}.tail1234.ts.net"), "keyExpiryDisabled": true,
            "tags": ["tag:server"], "enabledRoutes": [route],
        })
    };
    let devices = vec![server(1, "10.1.0.0/16"), server(2, "10.2.0.0/16")];
    let tailnet = Tailnet::of(devices).await;
    let shared = tailnet.run(&["export", "--group-by", "tag"]).await.ok();
    insta::assert_snapshot!(shared, @r#"
    # Written by: tsdp export --group-by tag
    ---
    # 2 devices: server-1, server-2
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: tag-server
    spec:
      deviceSelector:
        tags: ["tag:server"]
      tags: ["tag:server"]
      keyExpiry: Disabled
    ---
    # server-1.tail1234.ts.net, node n1CNTRL, hostname server-1, linux, tagged
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: server-1
    spec:
      device: {nodeId: n1CNTRL}
      enabledRoutes: ["10.1.0.0/16"]
    ---
    # server-2.tail1234.ts.net, node n2CNTRL, hostname server-2, linux, tagged
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: server-2
    spec:
      device: {nodeId: n2CNTRL}
      enabledRoutes: ["10.2.0.0/16"]
    "#);
}

#[tokio::test]
async fn exports_repeat_exactly_and_keep_the_files_of_others() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let export = ["export", "--out", "policies"];
    tailnet.run(&export).await.ok();
    let file = tailnet.path("policies/fra-router.yaml");
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("# Written by: tsdp export\n# fra-router.tail1234.ts.net, node n"));
    assert_eq!(fs::read_dir(tailnet.path("policies")).unwrap().count(), 8);
    tailnet.run(&export).await.ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), first);

    fs::write(&file, "mine").unwrap();
    fs::remove_file(tailnet.path("policies/nas.yaml")).unwrap();
    let refused = tailnet.run(&export).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("policies/fra-router.yaml"),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(
        !tailnet.path("policies/nas.yaml").exists(),
        "nothing is written"
    );
    tailnet
        .run(&["export", "--out", "policies", "--force"])
        .await
        .ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), first);
}

#[tokio::test]
async fn without_attributes_one_request_is_enough() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let args = [
        "export",
        "--without-attributes",
        "--select",
        "users=amelie@*",
    ];
    let text = tailnet.run(&args).await.ok();
    assert_eq!(tailnet.requests(), ["GET /tailnet/-/devices?fields=all"]);
    assert!(text.starts_with(
        "# Written by: tsdp export --without-attributes --select 'users=amelie@*'\n---\n"
    ));
    assert_eq!(text.matches("\n---\n").count(), 2, "{text}");
    assert!(!text.contains("postureAttributes"), "{text}");
}

#[tokio::test]
async fn a_device_that_cannot_be_read_is_reported_and_stops_no_other() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let devices = tailnet.simulator.devices().unwrap();
    let nas = devices
        .iter()
        .find(|device| device["hostname"] == "nas")
        .unwrap();
    let mut fault = FaultSpec::new(FaultKind::Status);
    fault.status = Some(501);
    let node = nas["nodeId"].as_str().unwrap();
    fault.path = Some(format!("/api/v2/device/{node}/attributes"));
    tailnet.simulator.inject(fault).unwrap();
    let ran = tailnet.run(&["export"]).await;
    assert!(ran.err.contains(&format!(
        "tsdp: {node} could not be read completely: GET /device/"
    )));
    assert!(ran.err.contains("request REQ-"), "{}", ran.err);
    let text = ran.with_code(1);
    assert!(text.contains("# Not declared: postureAttributes: could not be read\n"));
    assert!(text.contains("custom:tier: {string: silver}"), "{text}");
}

#[tokio::test]
async fn an_invalid_selector_is_refused_with_what_to_write() {
    let tailnet = Tailnet::of(Vec::new()).await;
    for (part, reported) in [
        (
            "tag:router",
            "expected PART=VALUE, with PART one of tags, users, hostnames, os and expression",
        ),
        ("expression=device.colour", "colour"),
        (
            "tags=router",
            "write it with its prefix, such as tag:router",
        ),
    ] {
        let ran = tailnet.run(&["export", "--select", part]).await;
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(reported), "{}", ran.err);
    }
    assert!(tailnet.requests().is_empty());
}
