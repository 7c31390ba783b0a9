//! Workload identity: a workload token is exchanged for an API token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use secrecy::SecretString;
use tsdp::tailscale::{Client, Credential, IdentitySource, Kind, NoIdentity, Retry};

use super::{Reply, Script, Seen, node, settings};

/// Returns `jwt1`, `jwt2` … unless it is set to fail.
#[derive(Debug, Default)]
struct Source {
    given: AtomicUsize,
    fails: bool,
}

impl IdentitySource for Source {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoIdentity>> {
        Box::pin(async {
            if self.fails {
                return Err(NoIdentity("the Role lacks serviceaccounts/token".into()));
            }
            let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(SecretString::from(format!("head.canary{number}.signature")))
        })
    }
}

fn client(script: &Script, fails: bool) -> Client {
    let credential = Credential::WorkloadIdentity {
        client_id: " k1\n".to_owned(),
        source: Arc::new(Source {
            fails,
            ..Source::default()
        }),
    };
    Client::new(settings(script), credential).unwrap()
}

fn is_exchange(seen: &Seen) -> bool {
    seen.path == "/api/v2/oauth/token-exchange"
}

/// Exchanges each token for one that lives for an hour. `token1` is revoked at once.
async fn exchanging() -> Script {
    let mut given = 0;
    Script::start(move |seen| {
        if is_exchange(seen) {
            given += 1;
            let grant = serde_json::json!({
                "access_token": format!("tskey-api-token{given}"), "expires_in": 3600,
            });
            return Reply::new(200, grant.to_string());
        }
        match seen.authorization.as_deref() {
            Some("Bearer tskey-api-token1") => {
                Reply::new(401, r#"{"message":"API token invalid"}"#)
            }
            _ => Reply::new(200, r#"{"devices":[]}"#),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn each_access_token_needs_a_fresh_workload_token() {
    let script = exchanging().await;
    let client = client(&script, false);
    client.devices().await.unwrap();
    client.devices().await.unwrap();
    tokio::time::sleep(Duration::from_mins(56)).await;
    client.devices().await.unwrap();

    let list = |token| format!("Bearer tskey-api-token{token}");
    let form = |number| format!("client_id=k1&jwt=head.canary{number}.signature");
    let sent: Vec<_> = script
        .seen()
        .into_iter()
        .map(|seen| seen.authorization.unwrap_or(seen.body))
        .collect();
    let expected = [
        form(1),
        list(1),
        form(2),
        list(2),
        list(2),
        form(3),
        list(3),
    ];
    assert_eq!(sent, expected);
}

#[tokio::test(start_paused = true)]
async fn without_a_workload_token_nothing_is_sent_and_the_cause_is_reported() {
    let script = exchanging().await;
    let error = client(&script, true).delete(&node("n1")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "POST /oauth/token-exchange: there is no token to exchange: the Role lacks \
         serviceaccounts/token"
    );
    assert_eq!(
        (error.kind(), error.retry(), error.unknown_outcome()),
        (Kind::NoIdentity, Retry::Later, false)
    );
    assert!(script.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_identity_is_reported_with_what_to_check_and_without_the_token() {
    let script = Script::start(|seen| {
        let echo = serde_json::json!({"message": format!("no match for {}", seen.body)});
        Reply::new(403, echo.to_string())
    })
    .await;
    let error = client(&script, false).devices().await.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialRejected);
    let reported = format!("{error} {error:?}");
    assert!(
        reported.contains("check that client_id and audience"),
        "{reported}"
    );
    assert!(!reported.contains("canary"), "{reported}");
}
