//! Retries and rate limits.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::time::Instant;
use tsdp::model::SettingValue;
use tsdp::tailscale::{Budget, Client, Credential, Endpoint, Error, Kind, Observation, Retry};

use super::{API_KEY, Reply, Script, client, node, settings};

const NO_DEVICES: &str = r#"{"devices":[]}"#;

type Write = fn(Client) -> BoxFuture<'static, Result<(), Error>>;

fn passing_failures() -> Vec<Reply> {
    vec![
        Reply::hang_up(),
        Reply::new(200, NO_DEVICES).that_breaks_off(),
        Reply::new(500, ""),
        Reply::new(502, "<html>"),
        Reply::new(503, ""),
        Reply::new(429, ""),
    ]
}

/// How often the request was sent when `first` was the first response, followed by a success; and the
/// outcome.
async fn sent(
    first: &Reply,
    call: impl AsyncFn(Client) -> Result<(), Error>,
) -> (usize, Result<(), Error>) {
    let script = Script::in_turn([first.clone(), Reply::new(200, NO_DEVICES)]).await;
    let outcome = call(client(&script)).await;
    (script.seen().len(), outcome)
}

#[tokio::test(start_paused = true)]
async fn a_read_is_retried_after_a_temporary_failure_and_a_write_never() {
    for failure in passing_failures() {
        let (times, outcome) = sent(&failure, async |c| c.devices().await.map(drop)).await;
        assert!(
            times == 2 && outcome.is_ok(),
            "{failure:?} {times} {outcome:?}"
        );
        let writes: [Write; 3] = [
            |c| Box::pin(async move { c.set(&node("n1"), &SettingValue::Authorized(true)).await }),
            |c| Box::pin(async move { c.delete(&node("n1")).await }),
            |c| Box::pin(async move { c.expire_key(&node("n1")).await }),
        ];
        for write in writes {
            let (times, outcome) = sent(&failure, async |c| write(c).await).await;
            assert_eq!(times, 1, "{failure:?} {outcome:?}");
            // A success with a broken body is a success: nothing reads the body.
            assert_eq!(outcome.is_ok(), failure.is_success(), "{failure:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lasting_failure_is_given_up_after_three_tries_and_a_refusal_at_once() {
    for (reply, tries) in [
        (Reply::new(500, ""), 3),
        (Reply::hang_up(), 3),
        (Reply::new(400, ""), 1),
    ] {
        let script = Script::in_turn([reply]).await;
        client(&script).devices().await.unwrap_err();
        assert_eq!(script.seen().len(), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_in_both_forms_delays_every_request() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(20));
    for (status, form) in [(429, "20".to_owned()), (503, date)] {
        let script = Script::in_turn([
            Reply::new(status, "").header("Retry-After", form.clone()),
            Reply::new(200, NO_DEVICES),
        ])
        .await;
        let client = client(&script);
        let start = Instant::now();
        client.devices().await.unwrap();
        client.device(&node("n1")).await.unwrap_err();
        let seen = script.seen();
        assert_eq!(seen.len(), 3);
        let waited = (seen[1].at - start).as_secs();
        // A date has whole seconds, and some pass while the test runs.
        assert!((15..=21).contains(&waited), "{form}: {waited}");
        assert!(seen[2].at > seen[1].at, "the pause ends without a burst");
    }
}

/// A client that waits for minutes in silence looks as if it hangs.
#[tokio::test(start_paused = true)]
async fn a_long_retry_after_is_reported_at_once_and_kept_by_the_next_request() {
    let script = Script::in_turn([
        Reply::new(429, "").header("Retry-After", "3600"),
        Reply::new(200, NO_DEVICES),
    ])
    .await;
    let client = client(&script);
    let start = Instant::now();
    let error = client.devices().await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(error.retry(), Retry::After(Duration::from_mins(5)));
    client.devices().await.unwrap();
    assert!(script.seen()[0].at - start < Duration::from_secs(30));
    assert!(script.seen()[1].at - start >= Duration::from_mins(5));
}

#[tokio::test(start_paused = true)]
async fn every_request_takes_from_the_budget_and_repeats_do_too() {
    let script = Script::in_turn([
        Reply::new(200, NO_DEVICES),
        Reply::new(200, ""),
        Reply::new(429, ""),
        Reply::new(200, NO_DEVICES),
    ])
    .await;
    let mut settings = settings(&script);
    settings.budget = Budget::new(0.1, 2).unwrap();
    let client = Client::new(settings, Credential::ApiKey(SecretString::from(API_KEY))).unwrap();
    let start = Instant::now();
    client.devices().await.unwrap();
    client
        .set(&node("n1"), &SettingValue::Authorized(true))
        .await
        .unwrap();
    client.devices().await.unwrap();
    let at: Vec<u64> = script
        .seen()
        .iter()
        .map(|seen| (seen.at - start).as_secs())
        .collect();
    assert_eq!(at, [0, 0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn each_exchange_is_observed() {
    let script = Script::in_turn([Reply::new(502, ""), Reply::new(200, NO_DEVICES)]).await;
    let observed = Arc::new(Mutex::new(Vec::new()));
    let mut settings = settings(&script);
    settings.observer = Some(Arc::new({
        let observed = Arc::clone(&observed);
        move |seen: &Observation| {
            observed
                .lock()
                .unwrap()
                .push((seen.endpoint, seen.status, seen.failure));
        }
    }));
    let client = Client::new(settings, Credential::ApiKey(SecretString::from(API_KEY))).unwrap();
    client.devices().await.unwrap();
    let expected = [
        (Endpoint::Devices, Some(502), Some(Kind::ServerError)),
        (Endpoint::Devices, Some(200), None),
    ];
    assert_eq!(*observed.lock().unwrap(), expected);
}
