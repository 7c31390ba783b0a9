//! Changes that are refused, held, or overridden by another policy.

use serde_json::json;

use crate::support::{Stage, calls};

#[tokio::test]
async fn an_unowned_tag_is_refused_until_the_policy_file_owns_it() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let nas = stage.node("nas");

    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, tags: [tag:storage], keyExpiry: Disabled}",
        )
        .await;
    let refused = format!(
        "tags: POST /device/{nas}/tags: each tag must be in tagOwners of the tailnet's policy file and \
         be owned by the credential: requested tags [tag:storage] are invalid or not permitted (HTTP \
         400, request REQ-…)"
    );
    stage
        .policy_says(
            "nas",
            &format!("False TagsNotPermitted (Stalled): {refused}"),
        )
        .await;
    // The other field does not wait for it.
    stage
        .device_has(&nas, json!({"keyExpiryDisabled": true, "tags": null}))
        .await;
    stage.event("nas", "TagsNotPermitted", &refused).await;
    let tries = calls(&stage.simulator).len();

    set_policy_file(&stage, r#"{"tagOwners": {"tag:storage": []}}"#).await;
    stage
        .policy_says("nas", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    stage
        .device_has(&nas, json!({"tags": ["tag:storage"]}))
        .await;
    let after = calls(&stage.simulator).len();
    assert!(after <= tries + 3, "{:?}", calls(&stage.simulator));
}

/// Edits the policy file as an administrator does.
async fn set_policy_file(stage: &Stage, text: &'static str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v2/tailnet/-/acl", stage.simulator.url());
    let request = client
        .post(url)
        .basic_auth("tskey-api-e2e", Some(""))
        .body(text);
    request.send().await.unwrap().error_for_status().unwrap();
    stage.simulator.clear_requests();
}

#[tokio::test]
async fn a_taken_address_is_not_requested_until_it_is_free() {
    let stage = Stage::new().await;
    let (nas, phone) = (stage.node("nas"), stage.node("ben-phone"));
    stage
        .simulator
        .patch_device(
            &phone,
            &json!({"addresses": ["100.80.0.77", "fd7a:115c:a1e0::77"]}),
        )
        .unwrap();
    let _controller = stage.controller().await;

    stage
        .policy("nas", "{device: {hostname: nas}, ipv4: 100.80.0.77}")
        .await;
    let present = stage.simulator.device(&nas).unwrap()["addresses"][0].clone();
    let held = format!(
        "False AddressInUse (Reconciling): nas ({nas}): ipv4: {} → 100.80.0.77 is held: ben-phone \
         ({phone}) has this address: give that device another address first.",
        present.as_str().unwrap()
    );
    stage.policy_says("nas", &held).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage
        .simulator
        .patch_device(
            &phone,
            &json!({"addresses": ["100.80.0.78", "fd7a:115c:a1e0::77"]}),
        )
        .unwrap();
    stage
        .policy_says("nas", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    assert_eq!(calls(&stage.simulator), [format!("POST /device/{nas}/ip")]);
}

#[tokio::test]
async fn key_expiry_that_would_cut_a_device_off_is_held_until_allowed() {
    let stage = Stage::new().await;
    let nas = stage.node("nas");
    let past = json!({"keyExpiryDisabled": true, "created": "2019-06-01T00:00:00Z",
        "expires": "2020-01-01T00:00:00Z"});
    stage.simulator.patch_device(&nas, &past).unwrap();
    let _controller = stage.controller().await;

    stage
        .policy("nas", "{device: {hostname: nas}, keyExpiry: Enabled}")
        .await;
    let held = format!(
        "False DisruptionHeld (Reconciling): nas ({nas}): keyExpiry: Disabled → Enabled is held: the \
         key's expiry lies in the past, so the device would be cut off until someone logs in to it: \
         write allowDisruption: [ExpiredKey] to allow it."
    );
    stage.policy_says("nas", &held).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, keyExpiry: Enabled, allowDisruption: [ExpiredKey]}",
        )
        .await;
    stage
        .policy_says("nas", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    assert_eq!(calls(&stage.simulator), [format!("POST /device/{nas}/key")]);
}

#[tokio::test]
async fn of_two_conflicting_policies_the_older_one_takes_precedence_until_it_goes() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let nas = stage.node("nas");
    let in_sync = format!("True InSync: nas ({nas}) is in sync.");

    stage
        .policy("first", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage.policy_says("first", &in_sync).await;
    // Creation times have whole seconds. Within one second the name decides, as it does here.
    stage
        .policy(
            "second",
            "{device: {hostname: nas}, tags: [tag:ci], keyExpiry: Disabled}",
        )
        .await;
    let lost = format!(
        "False Conflicted (Stalled): Another policy declares another value for nas ({nas}) and takes precedence: this policy yields tags to network/first. Edit one of them."
    );
    stage.policy_says("second", &lost).await;
    stage.policy_says("first", &in_sync).await;
    // Fields that are not overridden apply.
    stage
        .device_has(&nas, json!({"tags": ["tag:db"], "keyExpiryDisabled": true}))
        .await;

    stage
        .kubectl
        .ok(&["delete", "tsdp", "-n", "network", "first"])
        .await;
    stage.policy_says("second", &in_sync).await;
    stage
        .device_has(&nas, json!({"tags": ["tag:ci"], "keyExpiryDisabled": true}))
        .await;
}
