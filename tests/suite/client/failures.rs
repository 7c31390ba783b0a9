//! The content of a failure.

use std::time::Duration;

use secrecy::SecretString;
use tsdp::model::SettingValue;
use tsdp::tailscale::{
    Client, Credential,
    Kind::{self, *},
    Retry::{self, *},
    Settings, SetupError,
};

use super::{API_KEY, Reply, Script, client, node, settings};

const HTML: &str = "<html><head><title>Bad Gateway</title></head></html>";

/// Status and body; then the kind, whether a retry can help, and a part of the message.
const CASES: &[(u16, &str, Kind, Retry, &str)] = &[
    (
        400,
        r#"{"message":"requested tags [tag:a] are invalid or not permitted"}"#,
        TagsNotPermitted,
        Never,
        "tagOwners",
    ),
    (
        400,
        r#"{"message":"name \"x\" is already taken"}"#,
        NameTaken,
        Later,
        "already taken",
    ),
    (
        400,
        r#"{"message":"tagged nodes cannot be untagged without reauth"}"#,
        Refused,
        Never,
        "without reauth",
    ),
    (400, "null", Refused, Never, "null"),
    (400, "", Refused, Never, "an empty body"),
    (
        401,
        r#"{"message":"API token invalid"}"#,
        CredentialRejected,
        Never,
        "expired",
    ),
    (402, r#"{"message":"upgrade"}"#, PlanRefused, Never, "plan"),
    (
        403,
        r#"{"message":"calling actor does not have enough permissions to perform this function"}"#,
        Forbidden,
        Never,
        "needs the scope devices:core)",
    ),
    (
        403,
        r#"{"message":"user tailnet does not match"}"#,
        WrongTailnet,
        Never,
        "set spec.tailnet (or --tailnet)",
    ),
    (
        403,
        r#"{"message":"tailnet lock forbids this"}"#,
        Forbidden,
        Never,
        ": the API does not permit this: tailnet lock forbids this (HTTP 403",
    ),
    (
        403,
        r#"{"message":"feature not available on current billing plan"}"#,
        PlanRefused,
        Never,
        "billing plan",
    ),
    (
        404,
        r#"{"message":"no manageable device matching this ID found"}"#,
        NotFound,
        Never,
        "no manageable device",
    ),
    (
        404,
        r#"{"message":"404 page not found"}"#,
        UnexpectedAnswer,
        Later,
        "page not found",
    ),
    (
        404,
        HTML,
        UnexpectedAnswer,
        Later,
        "an HTML page 'Bad Gateway'",
    ),
    (405, "", Refused, Never, "an empty body"),
    (409, r#"{"message":"conflict"}"#, Refused, Later, "conflict"),
    (429, "slow down", RateLimited, Later, "slow down"),
    (
        500,
        r#"{"message":"address already in use"}"#,
        AddressInUse,
        Later,
        "another device has this address",
    ),
    (
        500,
        r#"{"message":"internal server error"}"#,
        ServerError,
        Later,
        "internal server error",
    ),
    (500, "", ServerError, Later, "an empty body"),
    (500, r#"{"message":"cut o"#, ServerError, Later, "cut o"),
    (
        501,
        r#"{"message":"cannot delete devices outside of your tailnet"}"#,
        ServerError,
        Never,
        "outside",
    ),
    (502, HTML, ServerError, Later, "an HTML page 'Bad Gateway'"),
    (
        302,
        "",
        UnexpectedAnswer,
        Later,
        "does not come from the Tailscale API",
    ),
];

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_status_request_id_and_meaning_whatever_its_body_is() {
    for &(status, body, kind, retry, says) in CASES {
        let reply = Reply::new(status, body)
            .header("X-Tailscale-Request-Id", "REQ-1")
            .header("Location", "http://192.0.2.1/");
        for reply in [reply.clone(), reply.that_breaks_off()] {
            let script = Script::in_turn([reply]).await;
            let error = client(&script)
                .set_tags(&node("n1"), &[].into())
                .await
                .unwrap_err();
            let found = (
                error.status(),
                error.kind(),
                error.retry(),
                error.request_id(),
            );
            assert_eq!(found, (Some(status), kind, retry, Some("REQ-1")), "{error}");
            let text = error.to_string();
            assert!(
                text.starts_with("POST /device/n1/tags: ") && text.contains(says),
                "{text}"
            );
            assert!(
                text.ends_with(&format!("(HTTP {status}, request REQ-1)")),
                "{text}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_the_request_id_is_not_reported() {
    // The header is cut off after 100 characters, where a part of the secret must not remain either.
    for before in ["", &"a".repeat(95)] {
        for status in [200, 400] {
            let script = Script::in_turn([Reply::new(status, "<html>")
                .header("X-Tailscale-Request-Id", format!("{before}{API_KEY}"))])
            .await;
            let error = client(&script)
                .set_tags(&node("n1"), &[].into())
                .await
                .unwrap_err();
            let id = error.request_id().unwrap();
            assert!(!id.contains("tskey"), "{error}");
            assert!(id.starts_with(&format!("{before}[reda")), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_reported_with_the_cause_and_a_possible_effect() {
    let script = Script::in_turn([Reply::hang_up()]).await;
    let error = client(&script).delete(&node("n1")).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Unreachable, None));
    assert!(error.unknown_outcome());
    assert!(error.to_string().contains("connection closed"), "{error}");

    let nobody = client(&script);
    drop(script);
    // The listener closes after its task has ended.
    tokio::task::yield_now().await;
    let error = nobody.delete(&node("n1")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (Kind::Unreachable, Retry::Later)
    );
    assert!(!error.unknown_outcome());
    assert!(error.to_string().contains("onnection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let (listener, _connections) = silent().await;
    let mut settings = Settings::new(listener.parse().unwrap(), "-");
    settings.timeouts.request = Duration::from_secs(3);
    let key = Credential::ApiKey(SecretString::from("tskey-api-x"));
    let error = Client::new(settings, key)
        .unwrap()
        .delete(&node("n1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.unknown_outcome());
    assert!(error.to_string().ends_with("within 3 s"), "{error}");
}

/// Accepts connections and never answers.
async fn silent() -> (String, tokio::net::TcpListener) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    (
        format!("http://{}", listener.local_addr().unwrap()),
        listener,
    )
}

/// A login portal answers everything with 200 and a page.
#[tokio::test]
async fn a_web_page_is_not_taken_for_a_success() {
    let script = Script::in_turn([Reply::new(200, HTML)]).await;
    let error = client(&script)
        .set(&node("n1"), &SettingValue::Authorized(true))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::UnexpectedAnswer);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Script::in_turn([Reply::new(200, r#"{"devices":[]}"#)]).await;
    let here = Reply::new(307, "").header("Location", elsewhere.url.clone());
    let script = Script::in_turn([here]).await;
    assert_eq!(
        client(&script).devices().await.unwrap_err().status(),
        Some(307)
    );
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn invalid_settings_are_refused_before_anything_is_sent() {
    let script = Script::in_turn([]).await;
    let with = |change: fn(&mut Settings), key: &str| {
        let mut settings = settings(&script);
        change(&mut settings);
        Client::new(settings, Credential::ApiKey(key.into()))
    };
    let fine = |_: &mut Settings| ();
    for url in [
        "ftp://example.com",
        "unix:/run/x",
        "https://me:pw@example.com",
        "https://example.com/?x=1",
    ] {
        let settings = Settings::new(url.parse().unwrap(), "-");
        let refused = Client::new(settings, Credential::ApiKey("tskey".into())).unwrap_err();
        assert!(matches!(refused, SetupError::BaseUrl), "{url}");
    }
    assert!(matches!(
        with(|s| s.tailnet = "..".into(), "tskey"),
        Err(SetupError::Tailnet(_))
    ));
    assert!(matches!(with(fine, " \n"), Err(SetupError::Credential)));
    assert!(matches!(
        with(fine, "two\nlines"),
        Err(SetupError::Credential)
    ));
    assert!(with(fine, "tskey-from-a-file\n").is_ok());
}
