//! What is refused, with the very status and message.

use serde_json::{Value, json};

use super::{Answered, Api, refused};

const NO_DEVICE: &str = "no manageable device matching this ID found";

#[tokio::test]
async fn each_refusal_has_its_status_and_message_and_no_effect() {
    let api = Api::start().await;
    let before = api.simulator.devices().unwrap();
    let long_key = format!("device/1/attributes/custom:{}", "k".repeat(122));
    let cases = [
        // Devices that cannot be managed: unknown, and shared in.
        ("POST", "device/9/tags", json!({"tags": []}), 404, NO_DEVICE),
        (
            "POST",
            "device/9/routes",
            json!({"routes": []}),
            404,
            NO_DEVICE,
        ),
        (
            "POST",
            "device/9/authorized",
            json!({"authorized": true}),
            404,
            NO_DEVICE,
        ),
        (
            "POST",
            "device/9/key",
            json!({"keyExpiryDisabled": true}),
            404,
            NO_DEVICE,
        ),
        (
            "POST",
            "device/9/ip",
            json!({"ipv4": "100.64.0.9"}),
            404,
            NO_DEVICE,
        ),
        (
            "POST",
            "device/9/name",
            json!({"name": "x"}),
            404,
            NO_DEVICE,
        ),
        ("POST", "device/9/expire", Value::Null, 404, NO_DEVICE),
        (
            "POST",
            "device/9/attributes/custom:a",
            json!({"value": 1}),
            404,
            NO_DEVICE,
        ),
        (
            "DELETE",
            "device/9/attributes/custom:a",
            Value::Null,
            404,
            NO_DEVICE,
        ),
        ("DELETE", "device/9", Value::Null, 404, NO_DEVICE),
        ("GET", "device/9", Value::Null, 404, NO_DEVICE),
        ("POST", "device/4/tags", json!({"tags": []}), 404, NO_DEVICE),
        (
            "POST",
            "device/n4CNTRL/authorized",
            json!({"authorized": true}),
            404,
            NO_DEVICE,
        ),
        (
            "DELETE",
            "device/4",
            Value::Null,
            501,
            "cannot delete devices outside of your tailnet",
        ),
        // Tags.
        (
            "POST",
            "device/1/tags",
            json!({"tags": ["tag:a", "tag:router", "b"]}),
            400,
            "requested tags [tag:a b] are invalid or not permitted",
        ),
        (
            "POST",
            "device/1/tags",
            json!({"tags": []}),
            400,
            "tagged nodes cannot be untagged without reauth",
        ),
        // IPv4.
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "100.64.0.2"}),
            500,
            "address already in use",
        ),
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "100.100.100.100"}),
            400,
            "bad IPv4 address: address is reserved for use by Tailscale",
        ),
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "100.115.93.255"}),
            400,
            "bad IPv4 address: address is reserved for use by Tailscale",
        ),
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "100.101.102.103"}),
            400,
            "bad IPv4 address: address is reserved for use by Tailscale",
        ),
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "10.0.0.1"}),
            400,
            "bad IPv4 address: address is not in the tailnet's IP pool",
        ),
        (
            "POST",
            "device/1/ip",
            json!({"ipv4": "100.64.0"}),
            400,
            "malformed JSON: unable to parse IP \"100.64.0\"",
        ),
        // Names.
        (
            "POST",
            "device/1/name",
            json!({"name": "Laptop"}),
            400,
            "name \"laptop\" is already taken",
        ),
        (
            "POST",
            "device/1/name",
            json!({"name": "-x"}),
            400,
            "invalid name \"-x\"",
        ),
        (
            "POST",
            "device/1/name",
            json!({"name": "a b"}),
            400,
            "invalid name \"a b\"",
        ),
        // Routes.
        (
            "POST",
            "device/1/routes",
            json!({"routes": ["10.0.0.1/16"]}),
            400,
            "invalid route \"10.0.0.1/16\": has non-address bits set",
        ),
        (
            "POST",
            "device/1/routes",
            json!({"routes": ["10.0.0.0"]}),
            400,
            "invalid route \"10.0.0.0\": not a CIDR",
        ),
        // Attributes.
        (
            "POST",
            "device/1/attributes/node:os",
            json!({"value": "x"}),
            400,
            "invalid attribute key \"node:os\": only the namespace \"custom:\" can be written",
        ),
        (
            "POST",
            "device/1/attributes/custom:a-b",
            json!({"value": "x"}),
            400,
            "invalid attribute key \"custom:a-b\": only letters, digits, underscores and colons \
                  may follow \"custom:\"",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": "two words"}),
            400,
            "attribute value may hold only letters, digits, underscores and periods",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": "x".repeat(51)}),
            400,
            "attribute value is longer than 50 characters",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": 1.5}),
            400,
            "attribute value 1.5 is no integer of at most 2^53-1",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": 9_007_199_254_740_992_i64}),
            400,
            "attribute value 9007199254740992 is no integer of at most 2^53-1",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": null}),
            400,
            "attribute value must be a string, number or boolean",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": 1, "comment": "c".repeat(201)}),
            400,
            "comment is longer than 200 characters",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": 1, "expiry": "2020-01-01T00:00:00Z"}),
            400,
            "expiry must be in the future",
        ),
        (
            "POST",
            "device/2/attributes/custom:tier",
            json!({"value": 1}),
            400,
            "attribute value type does not match the type of existing values for this key",
        ),
        (
            "POST",
            "device/2/attributes/custom:Tier",
            json!({"value": "x"}),
            400,
            "attribute key differs only in case from an existing key",
        ),
        // Bodies.
        (
            "POST",
            "device/1/tags",
            json!({"tag": []}),
            400,
            "json: unknown field \"tag\"",
        ),
        (
            "POST",
            "device/1/tags",
            json!({}),
            400,
            "missing required field \"tags\"",
        ),
        (
            "POST",
            "device/1/attributes/custom:a",
            json!({"value": 1, "expirySeconds": 5}),
            400,
            "json: unknown field \"expirySeconds\"",
        ),
        (
            "POST",
            "device/1/authorized",
            json!({"authorized": "true"}),
            400,
            "json: cannot unmarshal string into field \"authorized\" of type bool",
        ),
        (
            "POST",
            "device/1/key",
            Value::Null,
            400,
            "unexpected end of JSON input",
        ),
        (
            "POST",
            "device/1/key",
            json!({}),
            400,
            "missing required field \"keyExpiryDisabled\"",
        ),
        // The batch.
        (
            "PATCH",
            "tailnet/-/device-attributes",
            json!({"nodes": {"1": {"custom:a": {"value": 1}}, "9": {"custom:a": {"value": 1}}}}),
            404,
            NO_DEVICE,
        ),
        (
            "PATCH",
            "tailnet/-/device-attributes",
            json!({"nodes": {"1": {"custom:a": {"value": 1}, "custom:A": {"value": 1}}}}),
            400,
            "attribute key differs only in case from an existing key",
        ),
        (
            "PATCH",
            "tailnet/-/device-attributes",
            json!({"devices": {}}),
            400,
            "json: unknown field \"devices\"",
        ),
        // The list and the paths.
        (
            "GET",
            "tailnet/-/devices?fields=some",
            Value::Null,
            400,
            "invalid fields \"some\"",
        ),
        (
            "GET",
            "tailnet/-/devices?color=red",
            Value::Null,
            400,
            "cannot filter devices by \"color\"",
        ),
        (
            "GET",
            "tailnet/other.org/devices",
            Value::Null,
            404,
            "user tailnet does not match",
        ),
        ("GET", "device", Value::Null, 404, "404 page not found"),
        ("GET", "device/1/", Value::Null, 404, "404 page not found"),
        (
            "POST",
            "device/1/color",
            json!({}),
            404,
            "404 page not found",
        ),
    ];
    for (method, path, body, status, message) in cases {
        let sent = Some(body.clone()).filter(|body| !body.is_null());
        let answered = api.call(method, path, sent).await;
        assert_eq!(answered, refused(status, message), "{method} {path} {body}");
    }
    let answered = api.call("POST", &long_key, Some(json!({"value": 1}))).await;
    assert_eq!(answered.status, 400, "{answered:?}");
    assert_eq!(api.simulator.devices().unwrap(), before);
}

#[tokio::test]
async fn a_wrong_method_answers_405_with_nothing_in_it() {
    let api = Api::start().await;
    for (method, path) in [
        ("PUT", "device/1"),
        ("GET", "device/1/tags"),
        ("POST", "tailnet/-/devices"),
    ] {
        let answered = api.call(method, path, None).await;
        let expected = Answered {
            status: 405,
            body: Value::Null,
        };
        assert_eq!(answered, expected, "{method} {path}");
    }
}
