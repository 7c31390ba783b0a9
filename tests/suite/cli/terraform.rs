//! Export from what Terraform shows of its state and its plans (`tests/terraform`, made with the real provider).

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::tailnet::{Ran, Tailnet, program};

fn shown(name: &str) -> String {
    format!("{}/tests/terraform/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The devices of the tailnet that Terraform managed then.
fn devices(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(shown(name)).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    list["devices"].as_array().unwrap().clone()
}

/// Without a credential.
async fn export(arguments: &[&str], folder: &Path) -> Ran {
    let mut command = program();
    command.arg("export").args(arguments).current_dir(folder);
    command.output().await.unwrap().into()
}

async fn from(name: &str, folder: &Path) -> Ran {
    export(&["--from-terraform", &shown(name)], folder).await
}

#[tokio::test]
async fn each_resource_becomes_a_policy_and_a_removed_block() {
    let folder = tempfile::tempdir().unwrap();
    let ran = from("flat.state.json", folder.path()).await;
    insta::assert_snapshot!(ran.err, @"
    3 policies for 3 devices in 3 files.
    ");
    insta::assert_snapshot!(ran.ok(), @r#"
    # Written by: tsdp export --from-terraform flat.state.json
    ---
    # fra-router.tail1234.ts.net, node n000010CNTRL, hostname fra-router, linux, from Terraform: tailscale_device_key.fra, tailscale_device_subnet_routes.fra, tailscale_device_tags.fra
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: fra-router
    spec:
      device: {nodeId: n000010CNTRL}
      tags: ["tag:router"]
      keyExpiry: Disabled
      enabledRoutes: ["10.0.0.0/16"]
      exitNode: true
    ---
    # node n000012CNTRL, from Terraform: tailscale_device_key.laptop
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: laptop
    spec:
      device: {nodeId: n000012CNTRL}
      keyExpiry: Enabled
    ---
    # new-kiosk.tail1234.ts.net, node n000013CNTRL, hostname new-kiosk, linux, from Terraform: tailscale_device_authorization.kiosk
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: new-kiosk
    spec:
      device: {nodeId: n000013CNTRL}
      authorized: true
    # Hands the resources below over to tsdp. Add these blocks to the root module, delete the resource blocks
    # and the outputs that use them, and run terraform apply (Terraform 1.7 or later). Terraform then forgets the
    # resources and leaves the devices as they are. Without the blocks, it would enable key expiry again and withdraw
    # the routes. The plan must say: 0 to add, 0 to change, 0 to destroy.
    #
    # tailscale_device_authorization.kiosk
    # removed {
    #   from = tailscale_device_authorization.kiosk
    #
    #   lifecycle {
    #     destroy = false
    #   }
    # }
    #
    # tailscale_device_key.fra
    # removed {
    #   from = tailscale_device_key.fra
    #
    #   lifecycle {
    #     destroy = false
    #   }
    # }
    #
    # tailscale_device_key.laptop
    # removed {
    #   from = tailscale_device_key.laptop
    #
    #   lifecycle {
    #     destroy = false
    #   }
    # }
    #
    # tailscale_device_subnet_routes.fra
    # removed {
    #   from = tailscale_device_subnet_routes.fra
    #
    #   lifecycle {
    #     destroy = false
    #   }
    # }
    #
    # tailscale_device_tags.fra
    # removed {
    #   from = tailscale_device_tags.fra
    #
    #   lifecycle {
    #     destroy = false
    #   }
    # }
    "#);
}

#[tokio::test]
async fn instances_share_policies_and_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let state = shown("fleet.state.json");
    let arguments = ["--from-terraform", &state, "--out", "tailnet"];
    export(&arguments, folder.path()).await.ok();
    let read = |name: &str| fs::read_to_string(folder.path().join("tailnet").join(name)).unwrap();
    insta::assert_snapshot!(read("tag-web.yaml"), @r#"
    # Written by: tsdp export --from-terraform fleet.state.json
    # Digest: 706f0592. The next export replaces this file only if nobody has edited it.
    # 6 devices:
    #   web-0, web-1, web-2, web-3, web-4, web-5
    apiVersion: tailnet.dev/v1alpha1
    kind: TailscaleDevicePolicy
    metadata:
      name: tag-web
    spec:
      deviceSelector: {expression: "device.nodeId in ['n000000CNTRL', 'n000001CNTRL', 'n000002CNTRL', 'n000003CNTRL', 'n000004CNTRL', 'n000005CNTRL']", trustClaims: true}
      authorized: true
      tags: ["tag:web"]
      keyExpiry: Disabled
    "#);
    insta::assert_snapshot!(read("removed.tf"), @r#"
    # Written by: tsdp export --from-terraform fleet.state.json
    # Digest: ef990914. The next export replaces this file only if nobody has edited it.
    # Hands the resources below over to tsdp. Add these blocks to the root module, delete the resource blocks
    # and the outputs that use them, and run terraform apply (Terraform 1.7 or later). Terraform then forgets the
    # resources and leaves the devices as they are. Without the blocks, it would enable key expiry again and withdraw
    # the routes. The plan must say: 0 to add, 0 to change, 0 to destroy.

    # module.router["ams-router"].tailscale_device_authorization.this[0]
    # module.router["fra-router"].tailscale_device_authorization.this[0]
    removed {
      from = module.router.tailscale_device_authorization.this

      lifecycle {
        destroy = false
      }
    }

    # module.router["ams-router"].tailscale_device_key.this
    # module.router["fra-router"].tailscale_device_key.this
    removed {
      from = module.router.tailscale_device_key.this

      lifecycle {
        destroy = false
      }
    }

    # module.router["ams-router"].tailscale_device_tags.this
    # module.router["fra-router"].tailscale_device_tags.this
    removed {
      from = module.router.tailscale_device_tags.this

      lifecycle {
        destroy = false
      }
    }

    # module.web["web-0"].tailscale_device_authorization.this[0]
    # module.web["web-1"].tailscale_device_authorization.this[0]
    # module.web["web-2"].tailscale_device_authorization.this[0]
    # module.web["web-3"].tailscale_device_authorization.this[0]
    # module.web["web-4"].tailscale_device_authorization.this[0]
    # module.web["web-5"].tailscale_device_authorization.this[0]
    removed {
      from = module.web.tailscale_device_authorization.this

      lifecycle {
        destroy = false
      }
    }

    # module.web["web-0"].tailscale_device_key.this
    # module.web["web-1"].tailscale_device_key.this
    # module.web["web-2"].tailscale_device_key.this
    # module.web["web-3"].tailscale_device_key.this
    # module.web["web-4"].tailscale_device_key.this
    # module.web["web-5"].tailscale_device_key.this
    removed {
      from = module.web.tailscale_device_key.this

      lifecycle {
        destroy = false
      }
    }

    # module.web["web-0"].tailscale_device_tags.this
    # module.web["web-1"].tailscale_device_tags.this
    # module.web["web-2"].tailscale_device_tags.this
    # module.web["web-3"].tailscale_device_tags.this
    # module.web["web-4"].tailscale_device_tags.this
    # module.web["web-5"].tailscale_device_tags.this
    removed {
      from = module.web.tailscale_device_tags.this

      lifecycle {
        destroy = false
      }
    }
    "#);
    // Again, over the same files.
    export(&arguments, folder.path()).await.ok();
}

#[tokio::test]
async fn a_plan_of_the_policies_is_empty_where_that_of_terraform_is() {
    let tailnet = Tailnet::of(devices("devices.json")).await;
    for state in ["flat.state.json", "fleet.state.json"] {
        let manifests = from(state, tailnet.folder.path()).await.ok();
        let plan = tailnet.run_with(&["plan", "-f", "-"], &manifests).await;
        let reported = plan.ok();
        assert!(reported.starts_with("Nothing to change; "), "{reported}");
    }
}

#[tokio::test]
async fn a_plan_of_the_policies_has_the_changes_of_terraforms_plan() {
    let tailnet = Tailnet::of(devices("devices-at-plan.json")).await;
    let manifests = from("fleet.plan.json", tailnet.folder.path()).await.ok();
    let plan = ["plan", "-o", "json", "-f", "-"];
    let plan = tailnet.run_with(&plan, &manifests).await;
    let planned: Value = serde_json::from_str(&plan.out).unwrap();
    let planned = planned["changes"].as_array().unwrap();
    let mut planned: Vec<_> = planned
        .iter()
        .map(|change| format!("{} {}", change["nodeId"], change["field"]))
        .collect();
    planned.sort();
    let text = fs::read_to_string(shown("fleet.plan.json")).unwrap();
    let shown: Value = serde_json::from_str(&text).unwrap();
    let changes = shown["resource_changes"].as_array().unwrap().iter();
    let changes = changes.filter(|change| change["change"]["actions"] != json!(["no-op"]));
    let mut expected: Vec<_> = changes
        .map(|change| {
            let field = match change["type"].as_str().unwrap() {
                "tailscale_device_tags" => "tags",
                "tailscale_device_key" => "keyExpiry",
                other => panic!("{other}"),
            };
            format!("{} \"{field}\"", change["change"]["after"]["device_id"])
        })
        .collect();
    expected.sort();
    assert_eq!(planned, expected);
}

/// A state with one resource.
fn state(kind: &str, values: &Value) -> String {
    let resource = json!({
        "address": format!("{kind}.a"), "mode": "managed", "type": kind, "name": "a", "values": values,
    });
    json!({"format_version": "1.0", "values": {"root_module": {"resources": [resource]}}})
        .to_string()
}

#[tokio::test]
async fn what_no_policy_can_declare_stays_with_terraform() {
    let folder = tempfile::tempdir().unwrap();
    let routes = "tailscale_device_subnet_routes";
    for (kind, values, expected) in [
        (
            routes,
            json!({"device_id": "n1CNTRL", "routes": ["::/0"]}),
            "exitNode: only ::/0 of the two routes of an exit node is enabled",
        ),
        (
            routes,
            json!({"device_id": "n1CNTRL", "routes": ["10.0.0.1/8"]}),
            "10.0.0.1/8",
        ),
        (
            "tailscale_device_tags",
            json!({"device_id": "n1CNTRL", "tags": []}),
            "the API cannot remove the last tag of a device",
        ),
        (
            "tailscale_device_key",
            json!({"key_expiry_disabled": true}),
            "its device is known only after terraform apply",
        ),
        (
            "tailscale_device_key",
            json!({"device_id": "../x", "key_expiry_disabled": true}),
            "its device_id is not valid",
        ),
    ] {
        let path = folder.path().join("state.json");
        fs::write(&path, state(kind, &values)).unwrap();
        let ran = export(&["--from-terraform", "state.json"], folder.path()).await;
        let reported = format!("Not declared: {kind}.a stays with Terraform: ");
        assert!(ran.err.starts_with(&reported), "{}", ran.err);
        assert!(ran.err.contains(expected), "{}", ran.err);
        let out = ran.ok();
        assert!(
            !out.contains("kind:") && !out.contains("removed {"),
            "{out}"
        );
    }
}

#[tokio::test]
async fn an_older_id_names_a_device_that_no_data_source_shows() {
    let folder = tempfile::tempdir().unwrap();
    let values = json!({"device_id": "10000012", "key_expiry_disabled": false});
    let path = folder.path().join("state.json");
    fs::write(&path, state("tailscale_device_key", &values)).unwrap();
    let out = export(&["--from-terraform", "state.json"], folder.path())
        .await
        .ok();
    assert!(
        out.contains("  device: {id: \"10000012\"}\n  keyExpiry: Enabled\n"),
        "{out}"
    );
}

#[tokio::test]
async fn input_that_terraform_does_not_show_is_refused_with_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        (
            "No state.",
            "is not JSON of Terraform (expected value at line 1 column 1): expected the output of terraform show -json",
        ),
        (
            r#"{"version": 4, "lineage": "x", "resources": []}"#,
            "terraform show -json > state.json",
        ),
        (
            r#"{"planned_values": {}, "errored": true}"#,
            "is a plan that failed",
        ),
        (
            r#"{"format_version": "1.0"}"#,
            "has no resource that sets a device",
        ),
    ] {
        fs::write(folder.path().join("state.json"), text).unwrap();
        let ran = export(&["--from-terraform", "state.json"], folder.path()).await;
        assert!(ran.err.contains(expected), "{}", ran.err);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    }
    let ran = export(&["--from-terraform", "none.json"], folder.path()).await;
    assert!(ran.err.contains("cannot read none.json"), "{}", ran.err);
}
