//! The local control plane is a real one: other tests and `tsdp demo --kubernetes` depend on it.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Kubectl, control_plane};

#[tokio::test]
async fn applied_objects_can_be_read_and_control_planes_are_isolated() {
    let (one, other) = tokio::join!(control_plane(), control_plane());
    let (one, other) = (Kubectl::admin(&one), Kubectl::admin(&other));

    one.apply("{apiVersion: v1, kind: Namespace, metadata: {name: network}}")
        .await;

    let namespace = one.get(&["namespace", "network"]).await;
    assert_eq!(namespace["status"]["phase"], "Active");
    one.wait_for("jsonpath={.status.phase}=Active", &["namespace/network"])
        .await;
    let message = other.refused(&["get", "namespace", "network"]).await;
    assert!(message.contains("not found"), "{message}");
}

#[tokio::test]
async fn the_api_server_refuses_objects_that_violate_a_schema() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);

    let message = kubectl
        .apply_refused("{apiVersion: v1, kind: Namespace, metadata: {name: Not_A_Name}}")
        .await;

    assert!(message.contains("a lowercase RFC 1123 label"), "{message}");
}

#[tokio::test]
async fn service_account_has_the_permissions_of_its_roles_and_no_others() {
    let control_plane = control_plane().await;
    let admin = Kubectl::admin(&control_plane);
    admin.ok(&["create", "serviceaccount", "reader"]).await;
    let kubeconfig = control_plane
        .kubeconfig_for("default", "reader")
        .await
        .unwrap();
    let reader = Kubectl::with(&control_plane, &kubeconfig);

    let message = reader.refused(&["get", "configmaps"]).await;
    assert!(
        message.contains(
            r#"User "system:serviceaccount:default:reader" cannot list resource "configmaps""#
        ),
        "{message}"
    );

    admin
        .ok(&[
            "create",
            "role",
            "reader",
            "--verb=list",
            "--resource=configmaps",
        ])
        .await;
    admin
        .ok(&[
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            "--serviceaccount=default:reader",
        ])
        .await;
    reader.ok(&["get", "configmaps"]).await;
    let message = reader.refused(&["get", "secrets"]).await;
    assert!(message.contains("Forbidden"), "{message}");
}

#[tokio::test]
async fn the_kubeconfig_is_private_and_removed_with_the_control_plane() {
    let control_plane = control_plane().await;
    let kubeconfig = control_plane.kubeconfig();

    let mode = kubeconfig.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    drop(control_plane);
    assert!(!kubeconfig.exists());
}
