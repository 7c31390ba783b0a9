//! The requests of each method.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tsdp::{
    model::{
        AttributeKey, AttributeString, AttributeValue, DesiredAttribute, SafeInteger, SettingValue,
    },
    tailscale::{Client, Error},
};

use super::{API_KEY, Reply, Script, Seen, client, node};

fn text(value: &str) -> AttributeValue {
    AttributeValue::String(value.parse::<AttributeString>().unwrap())
}

fn desired(value: AttributeValue, expiry: Option<&str>) -> DesiredAttribute {
    DesiredAttribute {
        value,
        expiry: expiry.map(|time| time.parse().unwrap()),
    }
}

fn key(text: &str) -> AttributeKey {
    text.parse().unwrap()
}

/// Makes the call, answers every write with `answer`, and returns the one request.
async fn sent<T>(answer: &str, call: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Seen {
    let script = Script::in_turn([Reply::new(200, answer)]).await;
    call(client(&script)).await.map(drop).unwrap();
    let seen = script.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen[0].clone()
}

/// Asserts the request of a write, for each possible body of the response.
async fn assert_sends(
    method: &str,
    path: &str,
    body: Value,
    call: impl AsyncFn(Client) -> Result<(), Error>,
) {
    for answer in ["", "{}", "null", "not JSON"] {
        let seen = sent(answer, &call).await;
        assert_eq!((seen.method.as_str(), seen.path.as_str()), (method, path));
        assert_eq!(seen.authorization.unwrap(), format!("Bearer {API_KEY}"));
        let sent: Value = if seen.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&seen.body).unwrap()
        };
        assert_eq!(sent, body, "{path}");
    }
}

#[tokio::test]
async fn each_write_is_sent_as_the_api_documents_it() {
    let n = &node("n1CNTRL");
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/authorized",
        json!({"authorized": false}),
        async |c| c.set(n, &SettingValue::Authorized(false)).await,
    )
    .await;
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/tags",
        json!({"tags": ["tag:a", "tag:b"]}),
        async |c| {
            let tags = ["tag:b", "tag:a"].map(|tag| tag.parse().unwrap());
            c.set_tags(n, &tags.into()).await
        },
    )
    .await;
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/key",
        json!({"keyExpiryDisabled": true}),
        async |c| c.set(n, &SettingValue::KeyExpiryDisabled(true)).await,
    )
    .await;
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/ip",
        json!({"ipv4": "100.80.0.1"}),
        async |c| {
            c.set(n, &SettingValue::Ipv4("100.80.0.1".parse().unwrap()))
                .await
        },
    )
    .await;
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/name",
        json!({"name": "fra-router"}),
        async |c| {
            c.set(n, &SettingValue::Name("fra-router".parse().unwrap()))
                .await
        },
    )
    .await;
    assert_sends(
        "POST",
        "/api/v2/device/n1CNTRL/expire",
        Value::Null,
        async |c| c.expire_key(n).await,
    )
    .await;
    assert_sends("DELETE", "/api/v2/device/n1CNTRL", Value::Null, async |c| {
        c.delete(n).await
    })
    .await;
}

#[tokio::test]
async fn attributes_are_sent_with_their_types_and_expiries() {
    let n = &node("n1CNTRL");
    let path = "/api/v2/device/n1CNTRL/attributes/custom:my_attribute";
    let attribute = &key("custom:my_attribute");
    let number = AttributeValue::Integer(SafeInteger::try_from(9_007_199_254_740_991).unwrap());
    for (value, as_json) in [
        (text("my_value"), json!("my_value")),
        (number, json!(9_007_199_254_740_991_u64)),
        (AttributeValue::Boolean(true), json!(true)),
    ] {
        assert_sends("POST", path, json!({"value": as_json}), async |c| {
            c.set_attribute(n, attribute, &desired(value.clone(), None))
                .await
        })
        .await;
    }
    let until = json!({"value": "x", "expiry": "2027-01-01T00:00:00Z"});
    assert_sends("POST", path, until, async |c| {
        let desired = desired(text("x"), Some("2027-01-01T01:00:00+01:00"));
        c.set_attribute(n, attribute, &desired).await
    })
    .await;
    assert_sends("DELETE", path, Value::Null, async |c| {
        c.delete_attribute(n, attribute).await
    })
    .await;
}

/// A merge patch keeps fields that it does not name: an expiry must be cleared by name.
#[tokio::test]
async fn a_batch_of_attributes_sets_deletes_and_clears_expiries() {
    let patch = BTreeMap::from([
        (
            node("n1"),
            BTreeMap::from([
                (key("custom:a"), Some(desired(text("x"), None))),
                (key("custom:b"), None),
            ]),
        ),
        (
            node("n2"),
            BTreeMap::from([(
                key("custom:a"),
                Some(desired(text("y"), Some("2027-01-01T00:00:00Z"))),
            )]),
        ),
    ]);
    let body = json!({"nodes": {
        "n1": {"custom:a": {"value": "x", "expiry": null}, "custom:b": null},
        "n2": {"custom:a": {"value": "y", "expiry": "2027-01-01T00:00:00Z"}},
    }});
    assert_sends(
        "PATCH",
        "/api/v2/tailnet/-/device-attributes",
        body,
        async |c| c.patch_attributes(&patch).await,
    )
    .await;
}

#[tokio::test]
async fn reads_ask_for_all_fields_and_routes_are_read_back_from_a_write() {
    let n = &node("n1");
    let list = sent(r#"{"devices":[]}"#, async |c| c.devices().await).await;
    assert_eq!(list.path, "/api/v2/tailnet/-/devices?fields=all");
    let one = sent(r#"{"id":"1"}"#, async |c| c.device(n).await).await;
    assert_eq!(one.path, "/api/v2/device/n1?fields=all");
    let attributes = sent(r#"{"attributes":{}}"#, async |c| c.attributes(n).await).await;
    assert_eq!(attributes.path, "/api/v2/device/n1/attributes");

    let answer =
        r#"{"advertisedRoutes":["10.0.0.0/16"],"enabledRoutes":["10.0.0.0/16","fd00::/8"]}"#;
    let wanted = ["10.0.0.0/16", "fd00:0::/8"].map(|route| route.parse().unwrap());
    let seen = sent(answer, async |c| {
        let routes = c.set_routes(n, &wanted.into()).await?;
        assert_eq!(routes.enabled, wanted.into());
        assert_eq!(routes.advertised, wanted[..1].iter().copied().collect());
        Ok(())
    })
    .await;
    assert_eq!(seen.path, "/api/v2/device/n1/routes");
    assert_eq!(seen.body, r#"{"routes":["10.0.0.0/16","fd00::/8"]}"#);
}
