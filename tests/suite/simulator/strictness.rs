//! Refusals with their exact status and message.

use serde_json::{Value, json};

use super::{Answered, Api, refused};

#[tokio::test]
async fn each_refusal_has_its_status_and_message_and_no_effect() {
    let api = Api::start().await;
    let before = api.simulator.devices().unwrap();
    let mut group = Vec::new();
    for line in include_str!("refusals.txt").lines() {
        if let Some(answer) = line.strip_prefix("    ") {
            let (status, message) = answer.split_once(' ').unwrap();
            for request in group.drain(..) {
                let answered = ask(&api, request).await;
                assert_eq!(
                    answered,
                    refused(status.parse().unwrap(), message),
                    "{request}"
                );
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            group.push(line);
        }
    }
    assert!(group.is_empty(), "no answer follows {group:?}");
    assert_eq!(api.simulator.devices().unwrap(), before);
}

/// Sends a request in the form `METHOD path body`.
async fn ask(api: &Api, request: &str) -> Answered {
    let mut parts = request.splitn(3, ' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let body = parts.next().map(|body| serde_json::from_str(body).unwrap());
    api.call(method, path, body).await
}

#[tokio::test]
async fn a_length_is_accepted_up_to_its_limit_and_refused_beyond() {
    const MAX_INTEGER: i64 = (1 << 53) - 1;
    let api = Api::start().await;
    let key = |length| format!("attributes/custom:{}", "k".repeat(length));
    let text = |length| json!({"value": "s".repeat(length)});
    let number = |value: i64| json!({"value": value});
    let comment = |length| json!({"value": 1, "comment": "c".repeat(length)});
    let name = |length| json!({"name": "n".repeat(length)});
    for (path, within, policies_over_limit) in [
        ("attributes/custom:s", text(50), text(51)),
        (
            "attributes/custom:i",
            number(MAX_INTEGER),
            number(MAX_INTEGER + 1),
        ),
        (
            "attributes/custom:i",
            number(-MAX_INTEGER),
            number(-MAX_INTEGER - 1),
        ),
        ("attributes/custom:c", comment(200), comment(201)),
        ("name", name(63), name(64)),
    ] {
        for (body, status) in [(within, 200), (policies_over_limit, 400)] {
            let answered = api
                .call("POST", &format!("device/1/{path}"), Some(body))
                .await;
            assert_eq!(answered.status, status, "{path}: {}", answered.body);
        }
    }
    for (length, status) in [(121, 200), (122, 400)] {
        let path = format!("device/1/{}", key(length));
        let answered = api.call("POST", &path, Some(number(1))).await;
        assert_eq!(
            answered.status, status,
            "custom: and {length} letters: {}",
            answered.body
        );
    }
}

#[tokio::test]
async fn wrong_method_gets_405_with_an_empty_body() {
    let api = Api::start().await;
    for (method, path) in [
        ("PUT", "device/1"),
        ("GET", "device/1/tags"),
        ("POST", "tailnet/-/devices"),
        ("GET", "oauth/token"),
    ] {
        let answered = api.call(method, path, None).await;
        let expected = Answered {
            status: 405,
            body: Value::Null,
        };
        assert_eq!(answered, expected, "{method} {path}");
    }
}
