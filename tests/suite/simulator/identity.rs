//! Which workload tokens are exchanged. The tests of the controller check signatures, with an API server's
//! keys.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tsdp::simulator::{Options, WorkloadIdentity};

use super::{Answered, Api, refused, send};

const AUDIENCE: &str = "https://api.tailscale.com/k1";

fn jwt(claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(claims))
}

async fn api() -> Api {
    Api::with(Options {
        workload_identities: vec![
            format!("k1:{AUDIENCE}").parse().unwrap(),
            "reader:readers:devices:core:read".parse().unwrap(),
        ],
        ..Options::default()
    })
    .await
}

async fn exchange(api: &Api, client_id: &str, jwt: &str) -> Answered {
    let form = [("client_id", client_id), ("jwt", jwt)];
    send(api.request("POST", "oauth/token-exchange").form(&form)).await
}

#[tokio::test]
async fn a_token_for_the_audience_is_exchanged_and_every_other_one_is_refused() {
    let api = api().await;
    let now = jiff::Timestamp::now().as_second();
    let (soon, past) = (now + 600, now - 1);
    for (client_id, token, refusal) in [
        ("k1", jwt(&json!({"aud": AUDIENCE, "exp": soon})), None),
        (
            "k1",
            jwt(&json!({"aud": ["other", AUDIENCE], "exp": soon, "nbf": past})),
            None,
        ),
        (
            "k1",
            jwt(&json!({"aud": AUDIENCE, "exp": past})),
            Some("the JWT has expired"),
        ),
        (
            "k1",
            jwt(&json!({"aud": AUDIENCE, "exp": soon, "nbf": soon})),
            Some("the JWT is not in force yet"),
        ),
        (
            "k1",
            jwt(&json!({"aud": ["readers"], "exp": soon})),
            Some("the JWT is for another audience"),
        ),
        (
            "k1",
            jwt(&json!({"aud": AUDIENCE})),
            Some("the JWT's claims cannot be read"),
        ),
        (
            "k1",
            "one.two".to_owned(),
            Some("the JWT does not have three parts"),
        ),
        (
            "k1",
            "a.b.c.d".to_owned(),
            Some("the JWT does not have three parts"),
        ),
        (
            "k2",
            jwt(&json!({"aud": AUDIENCE, "exp": soon})),
            Some("there is no federated identity with this client_id"),
        ),
    ] {
        let answered = exchange(&api, client_id, &token).await;
        match refusal {
            None => assert_eq!(answered.status, 200, "{}", answered.body),
            Some(why) => assert_eq!(answered, refused(401, why)),
        }
    }
    let form = [("client_id", "k1")];
    let without = send(api.request("POST", "oauth/token-exchange").form(&form)).await;
    assert_eq!(without, refused(400, "client_id and jwt are required"));
    let log = serde_json::to_string(&api.simulator.requests()).unwrap();
    assert!(!log.contains("jwt"), "{log}");
}

#[tokio::test]
async fn exchanged_token_has_the_scopes_of_its_identity_and_expires_like_others() {
    let api = api().await;
    let exp = jiff::Timestamp::now().as_second() + 600;
    let answered = exchange(&api, "reader", &jwt(&json!({"aud": "readers", "exp": exp}))).await;
    assert_eq!(answered.body["scope"], "devices:core:read");
    let token = answered.body["access_token"].as_str().unwrap();
    let list = || api.request("GET", "tailnet/-/devices").bearer_auth(token);
    let delete = api.request("DELETE", "device/1").bearer_auth(token);
    assert_eq!(send(delete).await.status, 403);
    assert_eq!(send(list()).await.status, 200);
    api.simulator.revoke_tokens();
    assert_eq!(send(list()).await.status, 401);
}

#[test]
fn an_identity_is_written_as_client_id_audience_and_scopes() {
    for (text, audience, all) in [
        ("k1:api.tailscale.com/k1", "api.tailscale.com/k1", true),
        ("k1:https://a.example/b", "https://a.example/b", true),
        (
            "k1:https://a.example:devices:core",
            "https://a.example",
            false,
        ),
        ("k1:a:routes,devices:core", "a", false),
    ] {
        let identity: WorkloadIdentity = text.parse().unwrap();
        assert_eq!(
            (&*identity.client_id, &*identity.audience),
            ("k1", audience)
        );
        assert_eq!(
            identity.scopes == tsdp::simulator::Scopes::all(),
            all,
            "{text}"
        );
    }
    for text in ["", "k1", "k1:", ":a", "k1::all"] {
        assert!(text.parse::<WorkloadIdentity>().is_err(), "{text}");
    }
}
