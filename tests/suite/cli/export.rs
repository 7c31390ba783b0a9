use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;
use tsdp::simulator::{self, FaultKind, FaultSpec};

use super::tailnet::{Tailnet, demo_devices};

/// How many devices are the tailnet's own, and how many of them are ephemeral.
fn own(tailnet: &Tailnet) -> (usize, usize) {
    let devices = tailnet.simulator.devices().unwrap();
    let own = devices.iter().filter(|device| device["isExternal"] != true);
    let ephemeral = own.clone().filter(|device| device["isEphemeral"] == true);
    (own.clone().count(), ephemeral.count())
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries
        .map(|path| (name(&path), fs::read_to_string(&path).unwrap()))
        .collect()
}

#[tokio::test]
async fn exported_tailnet_of_300_devices_has_an_empty_plan() {
    let tailnet = Tailnet::large().await;
    let (own, ephemeral) = own(&tailnet);
    for options in [
        &["--include-ephemeral"][..],
        &["--group-by", "none"],
        &["--all"],
    ] {
        tailnet.simulator.clear_requests();
        let export = tailnet.run(&[&["export"], options].concat()).await;
        let described = if options.contains(&"--include-ephemeral") {
            own
        } else {
            let left_out = format!("Left out: {ephemeral} ephemeral");
            assert!(export.err.contains(&left_out), "{}", export.err);
            own - ephemeral
        };
        assert_eq!(
            tailnet.requests().len(),
            1 + described,
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
async fn export_of_300_devices_has_as_many_files_as_a_person_reads() {
    let tailnet = Tailnet::large().await;
    let export = ["export", "--out", "policies"];
    let err = tailnet.run(&export).await.err;
    let folder = tailnet.path("policies");
    let before = files(&folder);
    assert!(before.len() <= 40, "{} files", before.len());
    assert!(before.keys().any(|name| name == "user-amelie.yaml"));
    insta::assert_snapshot!(err, @"
    Reading the attributes of 269 devices, one request each.
    69 policies for 169 devices in 27 files.
    Left out: 100 with nothing to declare but defaults (--all writes them).
    Left out: 30 ephemeral (--include-ephemeral writes them).
    Left out: 1 shared in from other tailnets.
    ");

    // One server drifts: one file changes, without --force.
    let server = tailnet.simulator.devices().unwrap();
    let server = server
        .iter()
        .find(|device| device["tags"] == json!(["tag:fra", "tag:server"]));
    let node = server.unwrap()["nodeId"].as_str().unwrap().to_owned();
    let drift = json!({"keyExpiryDisabled": false});
    tailnet.simulator.patch_device(&node, &drift).unwrap();
    tailnet.run(&export).await.ok();
    let after = files(&folder);
    let is_changed = |name: &&String| before.get(*name) != after.get(*name);
    let changed: Vec<&str> = before
        .keys()
        .filter(is_changed)
        .map(String::as_str)
        .collect();
    assert_eq!(
        (changed, after.len()),
        (vec!["tag-fra-server.yaml"], before.len())
    );
    tailnet.run(&["plan", "-f", "policies"]).await.ok();
}

#[tokio::test]
async fn export_of_10_000_devices_has_at_most_400_files() {
    let tailnet = Tailnet::of(simulator::generate(10_000, 3)).await;
    let export = ["export", "--without-attributes", "--out", "policies"];
    tailnet.run(&export).await.ok();
    let files = files(&tailnet.path("policies"));
    assert!(files.len() <= 400, "{} files", files.len());
    let plan = tailnet.run(&["plan", "-f", "policies"]).await.ok();
    assert!(plan.starts_with("Nothing to change; "), "{plan}");
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
    let shared = tailnet.run(&["export"]).await.ok();
    insta::assert_snapshot!(shared, @r#"
    # Written by: tsdp export
    ---
    # 2 devices:
    #   server-1, server-2
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: tag-server
    spec:
      deviceSelector: {expression: "device.nodeId in ['n1CNTRL', 'n2CNTRL']", trustClaims: true}
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
async fn a_device_that_joins_is_not_changed() {
    let server = |number: usize, disabled: bool| {
        json!({
            "nodeId": format!("n{number}CNTRL"), "hostname": format!("server-{number}"),
            "name": format!("server-{number}.tail1234.ts.net"), "keyExpiryDisabled": disabled,
            "tags": ["tag:server"], "enabledRoutes": if disabled { json!([]) } else { json!(["10.0.0.0/8"]) },
        })
    };
    let today = vec![server(1, true), server(2, true), server(3, true)];
    let manifests = Tailnet::of(today.clone()).await.run(&["export"]).await.ok();
    assert_eq!(manifests.matches("kind: ").count(), 1, "{manifests}");
    let tomorrow = [today, vec![server(4, false)]].concat();
    let tailnet = Tailnet::of(tomorrow).await;
    let plan = tailnet
        .run_with(&["plan", "-f", "-"], &manifests)
        .await
        .ok();
    assert!(plan.starts_with("Nothing to change; "), "{plan}");
}

#[tokio::test]
async fn exports_repeat_exactly_and_keep_the_files_of_others() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let export = ["export", "--out", "policies"];
    let reported = tailnet.run(&export).await;
    insta::assert_snapshot!(reported.err, @"
    6 policies for 5 devices in 3 files.
    Left out: 3 with nothing to declare but defaults (--all writes them).
    ");
    let file = tailnet.path("policies/lobby-kiosk.yaml");
    let first = fs::read_to_string(&file).unwrap();
    insta::assert_snapshot!(first, @r#"
    # Written by: tsdp export
    # Digest: c0b7adc2. The next export replaces this file only if nobody has edited it.
    # lobby-kiosk.tail1234.ts.net, node n20004CNTRL, hostname lobby-kiosk, windows, of kiosk@example.com
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: lobby-kiosk
    spec:
      device: {nodeId: n20004CNTRL}
      enabledRoutes: ["10.9.0.0/24"]
    "#);
    let names: Vec<_> = files(&tailnet.path("policies")).into_keys().collect();
    insta::assert_snapshot!(names.join(" "), @"lobby-kiosk.yaml tag-router.yaml user-amelie.yaml");
    tailnet.run(&export).await.ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), first);

    let unreadable = tailnet.path("policies/tag-router.yaml");
    fs::write(&file, "mine").unwrap();
    fs::remove_file(tailnet.path("policies/user-amelie.yaml")).unwrap();
    fs::remove_file(&unreadable).unwrap();
    std::os::unix::fs::symlink("nowhere", &unreadable).unwrap();
    let refused = tailnet.run(&export).await;
    assert_eq!(refused.code, Some(1));
    insta::assert_snapshot!(refused.err, @"tsdp: these files exist with other content, so nothing was written: policies/lobby-kiosk.yaml, policies/tag-router.yaml (cannot be read: No such file or directory (os error 2)). Choose another place, or add --force to overwrite them");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(fs::symlink_metadata(&unreadable).unwrap().is_symlink());
    assert!(
        !tailnet.path("policies/user-amelie.yaml").exists(),
        "nothing is written"
    );
    tailnet
        .run(&["export", "--out", "policies", "--force"])
        .await
        .ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), first);
}

#[tokio::test]
async fn files_of_devices_that_left_are_removed_unless_someone_edited_them() {
    let device = |number: usize| {
        json!({
            "nodeId": format!("n{number}CNTRL"), "hostname": format!("router-{number}"),
            "name": format!("router-{number}.tail1234.ts.net"), "tags": [format!("tag:site{number}")],
        })
    };
    let before = Tailnet::of((1..5).map(device).collect()).await;
    before.run(&["export", "--out", "policies"]).await.ok();
    let folder = before.path("policies");
    let edited = folder.join("router-2.yaml");
    let text = fs::read_to_string(&edited).unwrap() + "# Keep an eye on it.\n";
    fs::write(&edited, &text).unwrap();
    fs::write(folder.join("notes.yaml"), "# mine\n").unwrap();

    let after = Tailnet::of(vec![device(3), device(4)]).await;
    let out = folder.to_str().unwrap();
    // A selection says nothing about other devices that are still there.
    let selected = ["export", "--out", out, "--select", "tags=tag:site3"];
    for arguments in [&selected[..], &["export", "--out", out, "--force"]] {
        let ran = after.run(arguments).await;
        let err = ran.err.replace(out, "policies");
        let names: Vec<_> = files(&folder).into_keys().collect();
        assert_eq!(
            names,
            [
                "notes.yaml",
                "router-2.yaml",
                "router-3.yaml",
                "router-4.yaml"
            ]
        );
        assert!(
            err.contains("tsdp: policies/router-2.yaml is from an earlier export and stays"),
            "{err}"
        );
        let removed = "Removed policies/router-1.yaml: ";
        assert_eq!(err.contains(removed), arguments == selected, "{err}");
        ran.ok();
    }
    assert_eq!(fs::read_to_string(&edited).unwrap(), text);
}

#[tokio::test]
async fn an_export_can_be_one_file() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let export = ["export", "--out", "tailnet.yaml"];
    tailnet.run(&export).await.ok();
    let path = tailnet.path("tailnet.yaml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("# Written by: tsdp export\n# Digest: "),
        "{text}"
    );
    tailnet.run(&["plan", "-f", "tailnet.yaml"]).await.ok();
    tailnet.run(&export).await.ok();
    fs::write(&path, text + "# mine\n").unwrap();
    let refused = tailnet.run(&export).await;
    assert!(
        refused
            .err
            .contains("tailnet.yaml. Choose another place, or add --force"),
        "{}",
        refused.err
    );
    assert_eq!(refused.code, Some(1));
}

/// A machine chooses its hostname.
#[tokio::test]
async fn no_hostname_makes_a_folder_unreadable() {
    let odd = "a\u{fffe}\u{ffff}\u{feff}\u{0}\u{1b}\u{7f}\u{85}\u{2028}\n---\nb: [";
    let device = |number: usize| {
        json!({
            "nodeId": format!("n{number}CNTRL"), "hostname": odd, "os": odd, "tags": ["tag:a"],
            "name": format!("{odd}{number}.tail1234.ts.net"), "user": odd,
        })
    };
    let tailnet = Tailnet::of((1..4).map(device).collect()).await;
    for grouping in ["tag", "none"] {
        let export = [
            "export",
            "--force",
            "--out",
            "policies",
            "--group-by",
            grouping,
        ];
        tailnet.run(&export).await.ok();
        let plan = tailnet.run(&["plan", "-f", "policies"]).await.ok();
        assert!(plan.starts_with("Nothing to change; "), "{plan}");
        let validate = ["validate", "-f", "policies"];
        let validated = super::tsdp(tailnet.folder.path(), &validate, "");
        assert!(validated.status.success(), "{validated:?}");
    }
}

#[tokio::test]
async fn defaults_are_written_only_if_they_are_asked_for() {
    let device = json!({
        "nodeId": "n1CNTRL", "hostname": "laptop", "name": "laptop.tail1234.ts.net", "advertisedRoutes": ["10.0.0.0/8"],
    });
    let tailnet = Tailnet::of(vec![device]).await;
    let ran = tailnet.run(&["export"]).await;
    insta::assert_snapshot!(ran.err, @"
    0 policies for 0 devices in 0 files.
    Left out: 1 with nothing to declare but defaults (--all writes them).
    ");
    assert_eq!(ran.ok(), "# Written by: tsdp export\n");
    let all = tailnet.run(&["export", "--all"]).await.ok();
    insta::assert_snapshot!(all, @"
    # Written by: tsdp export --all
    ---
    # laptop.tail1234.ts.net, node n1CNTRL, hostname laptop, linux, of amelie@example.com
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: laptop
    spec:
      device: {nodeId: n1CNTRL}
      keyExpiry: Enabled
      enabledRoutes: []
      exitNode: false
    ");
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
