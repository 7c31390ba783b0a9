//! Proxy and CA certificates come from the usual environment variables.
//!
//! A process cannot change its own environment safely, so the client runs in a second process: this test
//! binary with one test that is ignored otherwise.

use std::env;

use secrecy::SecretString;
use tokio::process::Command;
use tsdp::tailscale::{Client, Credential, Settings};

use super::{API_KEY, Reply, Script};

/// Variables that would override those of a test.
const INHERITED: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The output of a client that lists the devices of `url` in this environment.
async fn list_with(url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--nocapture", "--exact"]);
    command.arg("client::environment::client_in_its_own_process");
    for name in INHERITED {
        command.env_remove(name);
    }
    let output = command
        .envs(variables.iter().copied())
        .env("TSDP_TEST_URL", url)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
#[ignore = "run by the other tests in here, with an environment of their choice"]
async fn client_in_its_own_process() {
    let settings = Settings::new(env::var("TSDP_TEST_URL").unwrap().parse().unwrap(), "-");
    match Client::new(settings, Credential::ApiKey(SecretString::from(API_KEY))) {
        Ok(client) => println!("listed: {:?}", client.devices().await),
        Err(error) => println!("refused: {error}"),
    }
}

#[tokio::test]
async fn requests_go_through_the_proxy_of_the_environment() {
    let proxy = Script::in_turn([Reply::new(200, r#"{"devices":[]}"#)]).await;
    let reported = list_with("http://tailscale.invalid", &[("HTTP_PROXY", &proxy.url)]).await;
    assert!(reported.contains("listed: Ok([])"), "{reported}");
    let seen = proxy.seen();
    assert_eq!(
        seen[0].path,
        "http://tailscale.invalid/api/v2/tailnet/-/devices?fields=all"
    );

    let direct = Script::in_turn([Reply::new(200, r#"{"devices":[]}"#)]).await;
    let variables = [
        ("HTTP_PROXY", proxy.url.as_str()),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let reported = list_with(&direct.url, &variables).await;
    assert!(reported.contains("listed: Ok([])"), "{reported}");
    assert_eq!((proxy.seen().len(), direct.seen().len()), (1, 1));
}

#[tokio::test]
async fn ca_certificates_come_from_the_file_that_the_environment_names() {
    let reported = list_with(
        "https://tailscale.invalid",
        &[("SSL_CERT_FILE", "/dev/null")],
    )
    .await;
    assert!(
        reported.contains("refused: ") && reported.contains("No CA certificates"),
        "{reported}"
    );
}
