//! The effects of the endpoints, and how they are shown.

use serde_json::{Value, json};

use super::{Api, refused};

#[tokio::test]
async fn both_ids_address_the_same_device() {
    let api = Api::start().await;
    api.post("device/n1CNTRL/key", json!({"keyExpiryDisabled": false}))
        .await;
    assert_eq!(api.get("device/1").await["keyExpiryDisabled"], false);
    assert_eq!(api.get("device/1").await, api.get("device/n1CNTRL").await);
}

#[tokio::test]
async fn list_omits_the_fields_that_the_api_omits() {
    let api = Api::start().await;
    let all = api.get("tailnet/example.com/devices?fields=all").await;
    let [router, laptop, runner, shared] = &all["devices"].as_array().unwrap()[..] else {
        panic!("expected 4 devices, found {all:#}");
    };
    assert!(
        !router["lastSeen"].as_str().unwrap().contains('.'),
        "the time of the answer, in whole seconds"
    );
    assert_eq!(router.get("isEphemeral"), None, "it is false");
    assert_eq!(runner["isEphemeral"], true);
    for field in ["oauthClientId", "tailnetLockError", "tailnetLockKey"] {
        assert_eq!(router[field], "", "{field}");
    }
    for field in ["distro", "postureStatus"] {
        assert_eq!(router[field], json!({}), "{field}");
    }
    assert_eq!(laptop["lastSeen"], "2026-01-20T12:00:00Z");
    assert_eq!(
        laptop.get("tags"),
        None,
        "an untagged device has no tags, not an empty list"
    );
    assert_eq!(
        runner["tags"],
        json!(["tag:router", "tag:runner"]),
        "sorted"
    );
    assert_eq!(shared["isExternal"], true);
    assert_eq!(router["advertisedRoutes"], json!(["10.0.0.0/16"]));
    assert_eq!(router.get("attributes"), None, "no list has attributes");

    // The other form that was seen live.
    api.simulator.switch(|switches| {
        switches.connected_has_last_seen = false;
        switches.sends_empty_fields = true;
    });
    let all = api.get("tailnet/example.com/devices?fields=all").await;
    let router = &all["devices"][0];
    assert_eq!(router.get("lastSeen"), None, "it is connected");
    assert_eq!(router["isEphemeral"], false);
    assert_eq!(all["devices"][1]["tags"], json!([]));

    let some = api.get("tailnet/-/devices").await;
    assert_eq!(some["devices"][0].get("advertisedRoutes"), None);
    assert_eq!(some["devices"][0]["tags"], json!(["tag:router"]));
}

#[tokio::test]
async fn listed_devices_match_every_filter() {
    let api = Api::start().await;
    for (query, expected) in [
        ("?tags=tag:router", vec!["router", "runner"]),
        ("?tags=tag:router&tags=tag:runner", vec!["runner"]),
        (
            "?tags=tag:router&os=linux&isEphemeral=false",
            vec!["router"],
        ),
        ("?hostname=laptop", vec!["laptop"]),
        ("?hostname=lap", vec![]),
        ("?fields=all&nodeId=n4CNTRL", vec!["shared"]),
    ] {
        assert_eq!(api.listed(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn tags_are_returned_sorted_and_may_be_absent() {
    let api = Api::start().await;
    api.post("device/2/tags", json!({"tags": []})).await;
    assert_eq!(api.get("device/2").await.get("tags"), None);
    let tags = json!({"tags": ["tag:runner", "tag:router", "tag:runner"]});
    api.post("device/2/tags", tags).await;
    let sorted = json!(["tag:router", "tag:runner"]);
    assert_eq!(api.get("device/2").await["tags"], sorted);
}

#[tokio::test]
async fn the_server_rewrites_names() {
    let api = Api::start().await;
    for (wanted, name) in [
        ("AC-Upper", "ac-upper.tail1.ts.net"),
        ("under_score", "under-score.tail1.ts.net"),
        ("a.b.example.com", "a-b-example-com.tail1.ts.net"),
        ("dash-", "dash.tail1.ts.net"),
        ("full.tail1.ts.net", "full.tail1.ts.net"),
        ("", "router.tail1.ts.net"),
    ] {
        api.post("device/1/name", json!({"name": wanted})).await;
        let device = api.get("device/1").await;
        assert_eq!(device["name"], name, "{wanted:?}");
        assert_eq!(device["hostname"], "router", "it is what the machine says");
    }
}

#[tokio::test]
async fn a_freed_name_stays_taken_for_others_for_a_while() {
    let api = Api::start().await;
    api.post("device/1/name", json!({"name": "new"})).await;
    let wanted = Some(json!({"name": "router"}));
    let answered = api.call("POST", "device/2/name", wanted.clone()).await;
    assert_eq!(answered, refused(400, "name \"router\" is already taken"));
    api.simulator
        .switch(|switches| switches.clock_ahead_seconds = 61);
    assert_eq!(api.call("POST", "device/2/name", wanted).await.status, 200);
}

#[tokio::test]
async fn routes_are_replaced_and_sorted_by_number() {
    let api = Api::start().await;
    let routes = json!([
        "::/0",
        "10.0.1.0/24",
        "2.0.0.0/24",
        "0.0.0.0/0",
        "1.2.0.0/16",
        "2.0.0.0/24"
    ]);
    let sorted = json!([
        "0.0.0.0/0",
        "1.2.0.0/16",
        "2.0.0.0/24",
        "10.0.1.0/24",
        "::/0"
    ]);
    let answered = api.post("device/1/routes", json!({"routes": routes})).await;
    assert_eq!(
        answered,
        json!({"advertisedRoutes": ["10.0.0.0/16"], "enabledRoutes": sorted})
    );
    assert_eq!(api.get("device/1/routes").await, answered);
    let answered = api.post("device/1/routes", json!({"routes": []})).await;
    assert_eq!(answered["enabledRoutes"], json!([]));
}

#[tokio::test]
async fn ipv4_changes_and_the_ipv6_stays() {
    let api = Api::start().await;
    api.post("device/1/ip", json!({"ipv4": "100.80.0.1"})).await;
    let addresses = json!(["100.80.0.1", "fd7a:115c:a1e0::1"]);
    assert_eq!(api.get("device/1").await["addresses"], addresses);
    api.post("device/2/ip", json!({"ipv4": "100.64.0.1"})).await;
}

#[tokio::test]
async fn an_expired_key_stays_expired_when_expiry_is_enabled_again() {
    let api = Api::start().await;
    api.post("device/1/expire", Value::Null).await;
    let expired = api.get("device/1").await["expires"].clone();
    api.simulator
        .switch(|switches| switches.clock_ahead_seconds = 100);
    api.post("device/1/expire", Value::Null).await;
    api.post("device/1/key", json!({"keyExpiryDisabled": false}))
        .await;
    assert_eq!(api.get("device/1").await["expires"], expired);
}

#[tokio::test]
async fn deauthorizing_disconnects_and_an_ephemeral_device_leaves() {
    let api = Api::start().await;
    for id in ["1", "3"] {
        api.post(
            &format!("device/{id}/authorized"),
            json!({"authorized": false}),
        )
        .await;
    }
    assert_eq!(api.device("1")["connectedToControl"], false);
    assert!(api.device("1")["lastSeen"].is_string());
    assert_eq!(api.call("GET", "device/3", None).await.status, 404);
}

#[tokio::test]
async fn attributes_are_written_read_and_removed_at_their_expiry() {
    let api = Api::start().await;
    let expiry = "2060-01-01T00:00:00Z";
    let written = json!({"value": true, "expiry": expiry, "comment": "audit"});
    let answered = api
        .call(
            "POST",
            "device/1/attributes/custom%3Aaudited",
            Some(written),
        )
        .await;
    assert_eq!((answered.status, answered.body), (200, Value::Null));
    let never = json!({"value": 3, "expiry": "0001-01-01T00:00:00Z", "comment": ""});
    api.post("device/1/attributes/custom:score", never).await;
    api.call("DELETE", "device/1/attributes/custom:tier", None)
        .await;

    let read = api.get("device/1/attributes").await;
    assert_eq!(read["attributes"]["custom:audited"], true);
    assert_eq!(read["attributes"]["custom:score"], 3);
    assert_eq!(read["attributes"].get("custom:tier"), None);
    assert_eq!(read["attributes"]["node:os"], "linux");
    assert_eq!(read["expiries"], json!({"custom:audited": expiry}));

    api.simulator
        .switch(|switches| switches.clock_ahead_seconds = i32::MAX);
    let read = api.get("device/1/attributes").await;
    assert_eq!(read["attributes"].get("custom:audited"), None);
}

#[tokio::test]
async fn a_batch_is_a_merge_patch_over_devices() {
    let api = Api::start().await;
    let expiry = json!({"custom:tier": "2099-01-01T00:00:00Z"});
    api.simulator
        .patch_device("1", &json!({"expiries": expiry}))
        .unwrap();
    let nodes = json!({
        "n1CNTRL": {"custom:tier": {"value": "silver"}, "custom:score": null},
        "2": {"custom:tier": {"value": "bronze", "expiry": null}},
    });
    let body = json!({"nodes": nodes, "comment": "update"});
    let answered = api
        .call("PATCH", "tailnet/-/device-attributes", Some(body))
        .await;
    assert_eq!((answered.status, answered.body), (200, Value::Null));
    assert_eq!(
        api.device("1")["attributes"],
        json!({"custom:tier": "silver"})
    );
    assert_eq!(
        api.device("1")["expiries"],
        expiry,
        "absent in a merge patch is unchanged"
    );
    assert_eq!(
        api.device("2")["attributes"],
        json!({"custom:tier": "bronze"})
    );

    let clear = json!({"nodes": {"1": {"custom:tier": {"expiry": null}}}});
    api.call("PATCH", "tailnet/-/device-attributes", Some(clear))
        .await;
    assert_eq!(api.device("1")["expiries"], json!({}));
    assert_eq!(
        api.device("1")["attributes"],
        json!({"custom:tier": "silver"})
    );
}

#[tokio::test]
async fn posted_policy_file_determines_which_tags_can_be_set() {
    let api = Api::start().await;
    let path = "tailnet/-/acl";
    let text =
        "{\n  // who may give them\n  \"tagOwners\": {\"tag:db\": [\"autogroup:admin\"],},\n}\n";
    let post = |text: &'static str| {
        api.request("POST", path)
            .bearer_auth("tskey-api-any")
            .body(text)
    };
    assert_eq!(super::send(post(text)).await.status, 200);
    assert_eq!(api.get(path).await, text);

    api.post("device/2/tags", json!({"tags": ["tag:db"]})).await;
    assert_eq!(api.get("device/2").await["tags"], json!(["tag:db"]));
    let answered = api
        .call(
            "POST",
            "device/2/tags",
            Some(json!({"tags": ["tag:router"]})),
        )
        .await;
    assert_eq!(
        answered,
        refused(
            400,
            "requested tags [tag:router] are invalid or not permitted"
        )
    );
    assert_eq!(
        api.device("1")["authorized"],
        false,
        "nobody owns its tag any more"
    );

    let stale = post("{}").header("If-Match", "\"other\"");
    assert_eq!(
        super::send(stale).await,
        refused(412, "precondition failed, invalid old hash")
    );
    assert_eq!(
        super::send(post("{'tagOwners': {}}")).await.status,
        400,
        "HuJSON has no '…'"
    );
}

#[tokio::test]
async fn devices_can_be_added_changed_and_removed() {
    let api = Api::start().await;
    let added = api
        .simulator
        .add_device(json!({"hostname": "router"}))
        .unwrap();
    assert!(
        added["name"].as_str().unwrap().starts_with("router-1."),
        "{added:#}"
    );
    let id = added["nodeId"].as_str().unwrap();
    assert_eq!(
        api.get(&format!("device/{id}")).await["addresses"],
        added["addresses"]
    );
    api.simulator.remove_device(id).unwrap();
    assert_eq!(api.listed("").await.len(), 4);

    let drift = json!({"tags": ["tag:x", "tag:a"], "attributes": {"custom:tier": null}});
    api.simulator.patch_device("1", &drift).unwrap();
    assert_eq!(api.get("device/1").await["tags"], json!(["tag:a", "tag:x"]));
    assert_eq!(api.device("1")["attributes"], json!({"custom:score": 7}));
}
