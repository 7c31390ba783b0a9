//! Parsing of responses: tolerant of missing fields, never of a wrong shape.

use serde_json::json;
use tsdp::{
    model::{Device, RouteSet},
    tailscale::{Error, Kind},
};

use super::{Reply, Script, client, node};

async fn list(body: impl Into<String>) -> Result<Vec<Device>, Error> {
    let script = Script::in_turn([Reply::new(200, body)]).await;
    client(&script).devices().await
}

#[tokio::test]
async fn a_response_of_the_wrong_shape_is_an_error_with_its_position_and_never_an_empty_list() {
    for (body, says) in [
        ("", "an empty body"),
        ("null", "expected an object"),
        ("[]", "expected an object"),
        ("[[]]", "expected an object"),
        ("{}", "missing field `devices`"),
        (r#"{"devices":null}"#, "devices: invalid type: null"),
        (r#"{"devices":{}}"#, "devices: invalid type: map"),
        (
            r#"{"devices":{"1":{"id":"1"}}}"#,
            "devices: invalid type: map",
        ),
        (r#"{"devices":[{"id":"1"}"#, "EOF"),
        (r#"{"devices":[]}{"devices":[]}"#, "trailing characters"),
        (
            r#"{"devices":[["1"]]}"#,
            "devices[0]: invalid type: sequence, expected an object",
        ),
        (
            r#"{"devices":[{"id":"1"},null]}"#,
            "devices[1]: invalid type: null, expected an object",
        ),
        (
            "<html><title>Log in</title></html>",
            "an HTML page 'Log in'",
        ),
    ] {
        let error = list(body).await.expect_err(body);
        assert_eq!(error.kind(), Kind::UnexpectedAnswer, "{body}");
        assert!(error.to_string().contains(says), "{body}\n{error}");
    }
}

/// It concerns one device, and says nothing about the API.
#[tokio::test]
async fn an_answer_about_one_device_that_cannot_be_read_is_its_own_kind_of_failure() {
    for body in [
        r#"{"advertisedRoutes":[]}"#,
        r#"{"enabledRoutes":null}"#,
        r#"{"enabledRoutes":["10.0.0.0"]}"#,
    ] {
        let script = Script::in_turn([Reply::new(200, body)]).await;
        let error = client(&script).routes(&node("n1")).await.expect_err(body);
        assert_eq!(error.kind(), Kind::UnreadableDevice, "{body}");
    }
    let body = r#"{"attributes":[]}"#;
    let script = Script::in_turn([Reply::new(200, body)]).await;
    let error = client(&script).attributes(&node("n1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UnreadableDevice);
    for body in ["[]", "", "<html></html>"] {
        let script = Script::in_turn([Reply::new(200, body)]).await;
        let error = client(&script).routes(&node("n1")).await.expect_err(body);
        assert_eq!(error.kind(), Kind::UnexpectedAnswer, "{body}");
    }
}

#[tokio::test]
async fn absent_fields_of_a_device_have_their_documented_meaning() {
    let devices = list(
        json!({"devices": [
            {"id": "1", "nodeId": "n1CNTRL", "name": "a.ts.net", "newField": {"x": [1]},
             "created": "", "expires": "0001-01-01T00:00:00Z",
             "addresses": ["fd7a:115c:a1e0::1", "100.64.0.1"]},
            {"id": "2", "tags": null, "addresses": null, "lastSeen": "2026-01-01T00:00:00Z",
             "expires": "", "enabledRoutes": ["fd00:0::/8", "10.0.0.0/8"], "advertisedRoutes": []},
        ]})
        .to_string(),
    )
    .await
    .unwrap();
    let [first, second] = &devices[..] else {
        panic!("{devices:?}")
    };

    assert_eq!(
        (first.node_id.as_str(), first.legacy_id.as_str()),
        ("n1CNTRL", "1")
    );
    assert_eq!(first.ipv4, Some("100.64.0.1".parse().unwrap()));
    assert_eq!((first.expires, first.last_seen), (None, None));
    assert!(first.tags.is_empty());
    // A missing field is not the same as an empty one.
    assert_eq!(
        (&first.enabled_routes, &first.advertised_routes),
        (&None, &None)
    );

    assert_eq!(second.node_id.as_str(), "2");
    assert!(second.last_seen.is_some() && second.expires.is_none() && second.ipv4.is_none());
    let routes = ["10.0.0.0/8", "fd00::/8"].map(|route| route.parse().unwrap());
    assert_eq!(second.enabled_routes, Some(routes.into()));
    assert_eq!(second.advertised_routes, Some(RouteSet::new()));
}

#[tokio::test]
async fn only_custom_attributes_are_read_whatever_their_values() {
    let body = json!({
        "attributes": {"node:os": "linux", "custom:score": 8.5, "custom:tier": "gold", "ip:country": "DE"},
        "expiries": {"custom:tier": "2027-01-01T00:00:00Z"},
    });
    let script = Script::in_turn([Reply::new(200, body.to_string())]).await;
    let attributes = client(&script).attributes(&node("n1")).await.unwrap();
    let reported: Vec<String> = attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        reported,
        [
            "custom:score=8.5",
            "custom:tier=\"gold\" until 2027-01-01T00:00:00Z"
        ]
    );
}

#[tokio::test]
async fn missing_routes_and_attributes_are_an_error_not_none() {
    for body in ["{}", "null", r#"{"enabledRoutes":null,"attributes":null}"#] {
        let script = Script::in_turn([Reply::new(200, body)]).await;
        let client = client(&script);
        assert!(client.routes(&node("n1")).await.is_err(), "{body}");
        assert!(client.attributes(&node("n1")).await.is_err(), "{body}");
        assert!(client.device(&node("n1")).await.is_err(), "{body}");
    }
}
