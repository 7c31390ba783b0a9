//! The binary of a release, in a root folder that holds nothing else but CA certificates, `/etc/resolv.conf` and
//! `/etc/hosts`: as in the image, on a read-only file system, as the user 65532.
//!
//! `.ci/static` builds the binary, which takes longer than all other tests together, and runs these tests with it.
//! They need root for `chroot` and for a port of DNS, and the program openssl.

mod authority;
mod names;
mod root;
mod server;

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use self::{authority::Authority, names::NameServer, root::Root};
use crate::support::{Kubectl, control_plane, eventually};

/// The static binary.
fn binary() -> PathBuf {
    let help = "set TSDP_BIN to the static binary, or run .ci/static";
    std::env::var_os("TSDP_BIN").expect(help).into()
}

#[test]
#[ignore = "needs the static binary of a release: .ci/static"]
fn it_verifies_tls_and_resolves_names_by_dns_and_hosts() {
    let authority = Authority::new();
    let names = NameServer::start();
    let root = Root::new(&binary(), &authority.certificate());
    let good = server::start(&authority.issue("good", &["good.test", "hosts.test"]));
    let expired = server::start(&authority.issue_expired("expired", &["expired.test"]));
    let unknown = server::start(&Authority::new().issue("unknown", &["unknown.test"]));
    let devices = |name: &str, port: u16| {
        let url = format!("https://{name}:{port}");
        let output = root
            .command(&["devices", "--base-url", &url])
            .env("TAILSCALE_API_KEY", "tskey-api-static")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), message)
    };

    for name in ["good.test", "hosts.test"] {
        let (is_ok, message) = devices(name, good);
        assert!(is_ok, "{name}: {message}");
    }
    for (name, port, words) in [
        ("other.test", good, "not valid for"),
        ("expired.test", expired, "expired"),
        ("unknown.test", unknown, "UnknownIssuer"),
    ] {
        let (is_ok, message) = devices(name, port);
        assert!(!is_ok && message.contains(words), "{name}: {message}");
    }

    let asked = names.asked();
    assert!(asked.contains("good.test"), "{asked:?}");
    assert!(!asked.contains("hosts.test"), "{asked:?}");
}

#[tokio::test]
#[ignore = "needs the static binary of a release: .ci/static"]
async fn it_reads_a_kubeconfig_and_serves_health_as_an_ordinary_user() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    for file in ["namespace.yaml", "rbac.yaml"] {
        let file = format!("{}/deploy/{file}", env!("CARGO_MANIFEST_DIR"));
        kubectl.ok(&["apply", "-f", &file]).await;
    }
    kubectl.install_crds().await;
    let kubeconfig = control_plane
        .kubeconfig_for("tsdp-system", "tsdp")
        .await
        .unwrap();
    let root = Root::new(&binary(), &Authority::new().certificate());
    root.add_kubeconfig(&fs::read_to_string(kubeconfig).unwrap());
    let mut controller = root
        .command(&[
            "controller",
            "--namespace=tsdp-system",
            "--listen=127.0.0.53:18080",
        ])
        .env("KUBECONFIG", "/kubeconfig")
        .spawn()
        .unwrap();

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ready = eventually(Duration::from_mins(1), async || {
        let answer = client.get("http://127.0.0.53:18080/readyz").send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        if status == 200 { Ok(text) } else { Err(text) }
    })
    .await;
    let health = client.get("http://127.0.0.53:18080/healthz").send().await;
    let process = fs::read_to_string(format!("/proc/{}/status", controller.id())).unwrap();
    controller.kill().unwrap();
    controller.wait().unwrap();

    assert!(ready.contains("ok"), "{ready}");
    assert_eq!(health.unwrap().status().as_u16(), 200);
    let users = process.lines().find(|line| line.starts_with("Uid:"));
    assert_eq!(users, Some("Uid:\t65532\t65532\t65532\t65532"));
}

#[test]
#[ignore = "needs the static binary of a release: .ci/static"]
fn it_works_as_a_kubectl_plugin_without_a_shell() {
    let root = Root::new(&binary(), &Authority::new().certificate());
    let output = root.command(&["crds"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("tailscaletailnets"),
        "{text}"
    );
    // The file system is read-only: a command that writes says so.
    let output = root.command(&["crds", "--out=/crds"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("Read-only file system"), "{message}");
    let version = root.command(&["--version"]).output().unwrap();
    let expected = format!("tsdp {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
    let _: Value = serde_yaml::from_str(text.split("---\n").nth(1).unwrap()).unwrap();
}
