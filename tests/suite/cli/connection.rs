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
