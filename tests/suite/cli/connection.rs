use std::net::TcpListener;

use serde_json::json;
use tsdp::simulator::{self, Simulator};

use super::tailnet::{Ran, Tailnet, program};

#[tokio::test]
async fn command_without_a_credential_reports_what_to_set_and_sends_nothing() {
    for command in [
        &["devices"][..],
        &["export"],
        &["plan", "-f", "-", "--allow-empty"],
    ] {
        let ran: Ran = program().args(command).output().await.unwrap().into();
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        assert!(
            ran.err
                .starts_with("tsdp: found no credential. Set TAILSCALE_API_KEY")
        );
        assert!(ran.err.contains("TAILSCALE_OAUTH_CLIENT_ID"), "{}", ran.err);
    }
}

#[tokio::test]
async fn an_oauth_client_from_the_environment_is_used() {
    let options = simulator::Options {
        devices: vec![json!({"hostname": "fra"})],
        oauth_clients: vec!["kClient:tskey-client-cli".parse().unwrap()],
        ..simulator::Options::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    let with_secret = async |secret: &str| -> Ran {
        let mut command = program();
        command
            .args(["devices", "--base-url", &simulator.url()])
            .env("TAILSCALE_OAUTH_CLIENT_ID", "kClient")
            .env("TAILSCALE_OAUTH_CLIENT_SECRET", secret);
        command.output().await.unwrap().into()
    };
    let listed = with_secret("tskey-client-cli").await.ok();
    assert!(listed.contains("\nfra "), "{listed}");
    let refused = with_secret("tskey-client-wrong").await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("the credential was rejected"),
        "{}",
        refused.err
    );
}

#[tokio::test]
async fn no_log_level_prints_the_credential() {
    let tailnet = Tailnet::of(vec![json!({"hostname": "fra"})]).await;
    let ran = tailnet.run(&["export", "--log", "trace"]).await;
    assert!(ran.err.len() > 1000, "a loud log: {}", ran.err);
    assert!(
        !ran.err.contains(super::tailnet::API_KEY) && !ran.out.contains(super::tailnet::API_KEY)
    );
}

#[tokio::test]
async fn failures_are_reported_on_stderr_with_the_request_and_code_1() {
    let tailnet = Tailnet::of(vec![json!({"hostname": "fra"})]).await;
    let mut command = tailnet.tsdp(&["devices"]);
    command.env("TAILSCALE_API_KEY", "tskey-api-wrong");
    let ran: Ran = command.output().await.unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("GET /tailnet/-/devices"), "{}", ran.err);
    assert!(ran.err.contains("request REQ-"), "{}", ran.err);
}

/// Older tailnets have a domain or an email address as their name.
#[tokio::test]
async fn a_tailnet_has_any_name_that_the_api_accepts() {
    for name in [
        "T1234CNTRL",
        "example.com",
        "amelie+lab@example.com",
        "o'neil!#$%&*=?^_`{|}~-@büro.example.com",
    ] {
        let options = simulator::Options {
            devices: vec![json!({"hostname": "fra"})],
            api_keys: vec![super::tailnet::API_KEY.into()],
            tailnet: name.to_owned(),
            ..simulator::Options::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        for (tailnet, code) in [(name, 0), ("amelie lab@example.com", 1)] {
            let mut command = program();
            command
                .args(["devices", "--base-url", &simulator.url()])
                .args(["--tailnet", tailnet])
                .env("TAILSCALE_API_KEY", super::tailnet::API_KEY);
            let ran: Ran = command.output().await.unwrap().into();
            let listed = ran.with_code(code);
            assert_eq!(listed.contains("\nfra "), code == 0, "{listed}");
        }
    }
}

/// A server that takes connections and never answers.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test]
async fn a_failed_connection_is_reported_with_where_it_went_and_why() {
    let silent = silent();
    let quiet = format!("http://{}", silent.local_addr().unwrap());
    let cases = [
        (
            "http://127.0.0.1:1",
            None,
            "tsdp: GET /tailnet/-/devices: cannot connect to 127.0.0.1:1: connection refused\n",
        ),
        (
            "https://api.example.test",
            Some("http://amelie:secret@127.0.0.1:1"),
            "tsdp: GET /tailnet/-/devices: cannot connect to api.example.test:443 through the proxy \
             http://127.0.0.1:1: connection refused\n",
        ),
        (
            "http://127.0.0.1:1/api/v2/",
            None,
            "tsdp: found http://127.0.0.1:1/api/v2/ as the API's URL, expected it without /api/v2, which \
             each request adds\n",
        ),
        (
            quiet.as_str(),
            None,
            "tsdp: GET /tailnet/-/devices: no answer from SERVER within 6 s\n",
        ),
    ];
    for (url, proxy, expected) in cases {
        let mut command = program();
        command
            .args([
                "devices",
                "--base-url",
                url,
                "--timeout",
                "6",
                "--log",
                "info",
            ])
            .env("TAILSCALE_API_KEY", super::tailnet::API_KEY)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
        match proxy {
            Some(proxy) => command.env("HTTPS_PROXY", proxy),
            None => command.env("NO_PROXY", "*"),
        };
        let ran: Ran = command.output().await.unwrap().into();
        let server = silent.local_addr().unwrap().to_string();
        let reported = ran.err.replace(&server, "SERVER");
        assert!(reported.ends_with(expected), "{url}: {reported}");
        // A person must not wonder whether anything happens.
        let waits = reported.contains("no answer for 5 s; still waiting");
        assert_eq!(waits, url == quiet, "{reported}");
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    }
}
