//! Unverified behavior: each variant can be chosen.

use serde_json::{Value, json};

use super::{Answered, Api, refused, send};

/// Starts a tailnet, sets switches, and sends one write as a user.
async fn under(switches: Value, method: &str, path: &str, body: Value) -> (Api, Answered) {
    let api = Api::start().await;
    let url = format!("{}/_sim/switches", api.simulator.url());
    let set = send(api.http.put(url).body(switches.to_string())).await;
    assert_eq!(set.status, 200, "{switches}: {}", set.body);
    let answered = api.call(method, path, Some(body)).await;
    (api, answered)
}

#[tokio::test]
async fn switches_determine_the_refusals() {
    let teapot = json!({"status": 418, "message": "no"});
    let batch =
        json!({"nodes": {"1": {"custom:a": {"value": 1}}, "2": {"custom:a": {"value": 1}}}});
    let (ip, tier) = ("device/1/ip", "device/2/attributes/custom:tier");
    let attributes = "tailnet/-/device-attributes";
    for (switches, method, path, body, status) in [
        (
            json!({"reservedIpv4": teapot}),
            "POST",
            ip,
            json!({"ipv4": "100.100.0.1"}),
            418,
        ),
        (
            json!({"ipv4OutsidePool": teapot}),
            "POST",
            ip,
            json!({"ipv4": "1.1.1.1"}),
            418,
        ),
        (
            json!({"ipv4InUse": teapot}),
            "POST",
            ip,
            json!({"ipv4": "100.64.0.2"}),
            418,
        ),
        (json!({}), "POST", ip, json!({"ipv4": "100.64.0.1"}), 200),
        (
            json!({"ownIpv4IsInUse": true}),
            "POST",
            ip,
            json!({"ipv4": "100.64.0.1"}),
            500,
        ),
        (
            json!({"attributeTypeConflict": teapot}),
            "POST",
            tier,
            json!({"value": 1}),
            418,
        ),
        (
            json!({"attributeCaseCollision": teapot}),
            "POST",
            "device/2/attributes/custom:TIER",
            json!({"value": "x"}),
            418,
        ),
        (
            json!({"batchMaxNodes": 1}),
            "PATCH",
            attributes,
            batch.clone(),
            413,
        ),
        (json!({"batchMaxNodes": 2}), "PATCH", attributes, batch, 200),
        (
            json!({"batchSkipsUnknownNodes": true}),
            "PATCH",
            attributes,
            json!({"nodes": {"9": {"custom:a": null}}}),
            200,
        ),
        (
            json!({"deviceApproval": false}),
            "POST",
            "device/1/authorized",
            json!({"authorized": false}),
            400,
        ),
        (
            json!({"deviceApproval": false, "deauthorizeWithoutApproval": true}),
            "POST",
            "device/1/authorized",
            json!({"authorized": false}),
            200,
        ),
        (
            json!({}),
            "DELETE",
            "device/1/attributes/custom:none",
            Value::Null,
            200,
        ),
        (
            json!({"missingAttributeIs404": true}),
            "DELETE",
            "device/1/attributes/custom:none",
            Value::Null,
            404,
        ),
    ] {
        let (_, answered) = under(switches.clone(), method, path, body).await;
        assert_eq!(
            answered.status, status,
            "{switches} {method} {path}: {}",
            answered.body
        );
    }
}

#[tokio::test]
async fn a_plan_without_attributes_refuses_writes_and_still_reads() {
    let switches = json!({"customAttributesInPlan": false});
    let path = "device/1/attributes/custom:tier";
    let (api, answered) = under(switches, "POST", path, json!({"value": "x"})).await;
    assert_eq!(
        answered,
        refused(403, "feature not available on current billing plan")
    );
    assert_eq!(
        api.get("device/1/attributes").await["attributes"]["custom:tier"],
        "gold"
    );
}

#[tokio::test]
async fn tagging_leaves_key_expiry_or_disables_it() {
    for disables in [false, true] {
        let switches = json!({"tagsDisableKeyExpiry": disables});
        let tags = json!({"tags": ["tag:router"]});
        let (api, _) = under(switches, "POST", "device/2/tags", tags).await;
        assert_eq!(api.device("2")["keyExpiryDisabled"], disables);
    }
}

#[tokio::test]
async fn ipv6_stays_or_follows_the_ipv4() {
    for (follows, ipv6) in [
        (false, "fd7a:115c:a1e0::1"),
        (true, "fd7a:115c:a1e0:ab12:4843:cd96:6250:1"),
    ] {
        let switches = json!({"ipv6FollowsIpv4": follows});
        let ipv4 = json!({"ipv4": "100.80.0.1"});
        let (api, _) = under(switches, "POST", "device/1/ip", ipv4).await;
        assert_eq!(api.device("1")["addresses"], json!(["100.80.0.1", ipv6]));
    }
}

#[tokio::test]
async fn host_bits_are_refused_masked_or_kept() {
    for (setting, enabled) in [
        ("refuse", json!([])),
        ("mask", json!(["10.1.0.0/16"])),
        ("keep", json!(["10.1.2.3/16"])),
    ] {
        let switches = json!({"routeHostBits": setting});
        let routes = json!({"routes": ["10.1.2.3/16"]});
        let (api, _) = under(switches, "POST", "device/1/routes", routes).await;
        assert_eq!(api.device("1")["enabledRoutes"], enabled, "{setting}");
    }
}

#[tokio::test]
async fn refused_batch_is_undone_or_partially_applied() {
    let nodes = json!({"1": {"custom:a": {"value": 1}}, "9": {"custom:a": {"value": 1}}});
    for atomic in [true, false] {
        let switches = json!({"batchIsAtomic": atomic});
        let path = "tailnet/-/device-attributes";
        let (api, answered) = under(switches, "PATCH", path, json!({"nodes": nodes})).await;
        assert_eq!(answered.status, 404);
        let written = api.device("1")["attributes"].get("custom:a").is_some();
        assert_eq!(written, !atomic);
    }
}

#[tokio::test]
async fn a_batch_entry_without_expiry_keeps_or_clears_it() {
    for keeps in [true, false] {
        let api = Api::start().await;
        let expiries = json!({"custom:tier": "2099-01-01T00:00:00Z"});
        api.simulator
            .patch_device("1", &json!({"expiries": expiries}))
            .unwrap();
        api.simulator
            .switch(|switches| switches.batch_keeps_expiry = keeps);
        let nodes = json!({"nodes": {"1": {"custom:tier": {"value": "silver"}}}});
        api.call("PATCH", "tailnet/-/device-attributes", Some(nodes))
            .await;
        let expected = if keeps { expiries } else { json!({}) };
        assert_eq!(api.device("1")["expiries"], expected);
    }
}

#[tokio::test]
async fn written_attribute_has_three_kinds_of_response() {
    for (setting, body) in [
        ("null", Value::Null),
        ("empty", json!({})),
        (
            "attributes",
            json!({"attributes": {
                "custom:score": 8, "custom:tier": "gold", "node:os": "linux",
                "node:tsAutoUpdate": false, "node:tsReleaseTrack": "stable", "node:tsVersion": "1.96.2",
            }}),
        ),
    ] {
        let switches = json!({"attributeWriteAnswer": setting});
        let path = "device/1/attributes/custom:score";
        let (_, answered) = under(switches, "POST", path, json!({"value": 8})).await;
        assert_eq!(answered.body, body, "{setting}");
    }
}

#[tokio::test]
async fn routes_are_shown_to_a_token_without_their_scope_or_withheld() {
    for withheld in [false, true] {
        let api = Api::start().await;
        api.simulator
            .switch(|switches| switches.fields_all_needs_routes_scope = withheld);
        let form = [
            ("client_id", "k"),
            ("client_secret", "tskey-client-s"),
            ("scope", "devices:core:read"),
        ];
        let token = send(api.request("POST", "oauth/token").form(&form))
            .await
            .body;
        let token = token["access_token"].as_str().unwrap();
        let list = api
            .request("GET", "tailnet/-/devices?fields=all")
            .bearer_auth(token);
        let shown = send(list).await.body["devices"][0]
            .get("enabledRoutes")
            .is_some();
        assert_eq!(shown, !withheld);
    }
}

#[tokio::test]
async fn rate_limit_sends_retry_after_in_the_configured_form() {
    for form in ["seconds", "date", "absent"] {
        let limit = json!({"rateLimit": {"requests": 1, "seconds": 60, "retryAfter": form}});
        let (api, first) = under(
            limit,
            "POST",
            "device/1/tags",
            json!({"tags": ["tag:router"]}),
        )
        .await;
        assert_eq!(first.status, 200);
        let request = api.request("GET", "device/1").bearer_auth("tskey-api-any");
        let second = request.send().await.unwrap();
        assert_eq!(second.status(), 429);
        let again = second
            .headers()
            .get("retry-after")
            .map(|it| it.to_str().unwrap());
        match form {
            "seconds" => assert!((1..=60).contains(&again.unwrap().parse::<u32>().unwrap())),
            "date" => assert!(again.unwrap().ends_with(" GMT")),
            _ => assert_eq!(again, None),
        }
        api.simulator
            .switch(|switches| switches.clock_ahead_seconds = 60);
        assert_eq!(api.call("GET", "device/1", None).await.status, 200);
    }
}

#[tokio::test]
async fn an_unknown_switch_is_refused_and_changes_nothing() {
    let api = Api::start().await;
    let url = format!("{}/_sim/switches", api.simulator.url());
    let before = send(api.http.get(&url)).await.body;
    let sent = json!({"batchIsAtomic": false, "batchIsAtomik": true});
    let answered = send(api.http.put(&url).body(sent.to_string())).await;
    assert_eq!(answered.status, 400);
    assert!(
        answered.body["message"]
            .as_str()
            .unwrap()
            .contains("batchIsAtomik")
    );
    assert_eq!(send(api.http.get(&url)).await.body, before);
}
