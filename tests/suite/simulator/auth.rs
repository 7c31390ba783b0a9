//! Permissions.

use serde_json::{Value, json};
use tsdp::simulator::Options;

use super::{Answered, Api, refused, send};

const NOT_PERMITTED: &str =
    "calling actor does not have enough permissions to perform this function";

#[tokio::test]
async fn api_key_is_accepted_as_basic_or_bearer_only() {
    let only = Options {
        api_keys: vec!["tskey-api-One".into()],
        ..Options::default()
    };
    let (any, one) = (Api::start().await, Api::with(only).await);
    let list = |api: &Api| api.request("GET", "tailnet/-/devices");
    for (request, taken) in [
        (list(&any).basic_auth("tskey-api-x", Some("")), true),
        (list(&any).basic_auth("tskey-api-x", None::<&str>), true),
        (list(&any).bearer_auth("tskey-api-x"), true),
        (list(&any).bearer_auth("tskey-auth-x"), false),
        (list(&any).bearer_auth("tskey-api-"), false),
        (
            list(&any).basic_auth("tskey-api-x", Some("password")),
            false,
        ),
        (list(&any), false),
        (list(&one).bearer_auth("tskey-api-One"), true),
        (list(&one).bearer_auth("tskey-api-one"), false),
    ] {
        let answered = send(request).await;
        if taken {
            assert_eq!(answered.status, 200);
        } else {
            assert_eq!(answered, refused(401, "API token invalid"));
        }
    }
}

/// Requests a token as the Python client does: in the form, without `grant_type`.
async fn ask(api: &Api, id: &str, secret: &str) -> Answered {
    let form = [("client_id", id), ("client_secret", secret)];
    send(api.request("POST", "oauth/token").form(&form)).await
}

async fn token(api: &Api, id: &str) -> String {
    let answered = ask(api, id, "tskey-client-secret").await;
    assert_eq!(answered.status, 200, "{}", answered.body);
    answered.body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn oauth_client_gets_a_token_by_form_or_basic_authentication() {
    let api = Api::start().await;
    let by_form = ask(&api, "k1", "tskey-client-secret").await;
    let basic = api
        .request("POST", "oauth/token")
        .basic_auth("k1", Some("tskey-client-secret"));
    let by_basic = send(basic.form(&[("grant_type", "client_credentials")])).await;
    for answered in [by_form, by_basic] {
        assert_eq!(answered.status, 200);
        assert_eq!(answered.body["expires_in"], 3600);
        assert_eq!(answered.body["token_type"], "Bearer");
    }
    assert_eq!(
        ask(&api, "k1", "wrong").await,
        refused(401, "API token invalid")
    );
    let log = serde_json::to_string(&api.simulator.requests()).unwrap();
    assert!(!log.contains("tskey-"), "{log}");
}

#[tokio::test]
async fn token_is_refused_once_expired_or_revoked() {
    let api = Api::start().await;
    let list = |token| api.request("GET", "tailnet/-/devices").bearer_auth(token);
    let first = token(&api, "k1").await;
    assert_eq!(send(list(&first)).await.status, 200);
    api.simulator.revoke_tokens();
    assert_eq!(send(list(&first)).await, refused(401, "API token invalid"));
    let second = token(&api, "k1").await;
    assert_eq!(send(list(&second)).await.status, 200);
    api.simulator
        .switch(|switches| switches.clock_ahead_seconds = 3601);
    assert_eq!(send(list(&second)).await.status, 401);
}

#[tokio::test]
async fn each_endpoint_requires_its_scope() {
    let client = |id: &str, scopes: &str| {
        format!("{id}:tskey-client-secret:{scopes}")
            .parse()
            .unwrap()
    };
    let api = Api::with(Options {
        oauth_clients: vec![
            client("reader", "devices:core:read,all:read"),
            client("writer", "devices:core"),
            client("routes", "routes"),
            client("older", "devices"),
            client("all", "all"),
        ],
        ..Options::default()
    })
    .await;
    let (list, tags, routes) = ("tailnet/-/devices", "device/1/tags", "device/1/routes");
    let (attributes, invites) = ("device/1/attributes/custom:x", "device/1/device-invites");
    let (given, value) = (json!({"tags": ["tag:router"]}), json!({"value": 1}));
    for (client, method, path, body, permitted) in [
        ("reader", "GET", list, Value::Null, true),
        ("reader", "GET", routes, Value::Null, true),
        ("reader", "POST", tags, given.clone(), false),
        ("writer", "GET", list, Value::Null, true),
        ("writer", "POST", tags, given.clone(), true),
        ("writer", "GET", routes, Value::Null, false),
        ("writer", "POST", attributes, value.clone(), false),
        ("routes", "POST", routes, json!({"routes": []}), true),
        ("routes", "GET", list, Value::Null, false),
        ("older", "POST", tags, given, true),
        ("older", "POST", attributes, value, true),
        ("older", "POST", routes, json!({"routes": []}), false),
        ("all", "GET", invites, Value::Null, true),
        ("all", "POST", invites, json!([{}]), false),
    ] {
        let request = api
            .request(method, path)
            .bearer_auth(token(&api, client).await);
        let answered = send(request.body(body.to_string())).await;
        if permitted {
            assert_eq!(
                answered.status, 200,
                "{client} {method} {path}: {}",
                answered.body
            );
        } else {
            assert_eq!(
                answered,
                refused(403, NOT_PERMITTED),
                "{client} {method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn devices_that_are_shared_in_are_hidden_from_a_token() {
    let api = Api::start().await;
    let token = token(&api, "k1").await;
    let list = send(api.request("GET", "tailnet/-/devices").bearer_auth(token))
        .await
        .body;
    let devices = list["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 3, "4 less the one that is shared in");
    assert!(devices.iter().all(|device| device["isExternal"] == false));
}
