//! The demo with a real API server, to continue in with kubectl.

use std::process::Stdio;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::examples;
use crate::{
    api::schema,
    cli::process::{AnyError, on_signal},
    controller::{self, Options, election::Timings},
    local::{Binaries, ControlPlane},
    simulator::Simulator,
};

/// Runs the demo until Ctrl-C.
pub(super) async fn run() -> Result<(), AnyError> {
    let stop = on_signal()?;
    let simulator = Simulator::start(examples::tailnet()?).await?;
    let started = async {
        let binaries = Binaries::find_or_build().await?;
        ControlPlane::start(&binaries).await
    };
    let Some(started) = stop.run_until_cancelled(started).await else {
        // Ctrl-C during the first build, which takes minutes.
        return Ok(());
    };
    let cluster = started?;
    install(&cluster, &simulator.url()).await?;

    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let options = Options {
        namespace: Some("tsdp-system".to_owned()),
        policy_namespaces: Vec::new(),
        invites: false,
        // The port may be in use on a person's machine.
        listen: None,
        policy_metrics: 0,
        webhook_listen: None,
        service_account: None,
        lease: Timings::default(),
        clear_timeout: controller::CLEAR_TIMEOUT,
        environment: None,
    };
    let controller = tokio::spawn(controller::run(config, options, stop.clone()));
    let shown = stop.run_until_cancelled(show(&cluster)).await;
    if let Some(shown) = shown {
        shown?;
        println!("{}", farewell(&cluster, &simulator.url()));
        stop.cancelled().await;
    }
    println!("\nStopping.");
    // While the API server still runs: the controller releases its lease.
    controller.await??;
    Ok(())
}

/// Installs the resource definitions, the namespaces, and the connection to the simulator.
async fn install(cluster: &ControlPlane, url: &str) -> Result<(), AnyError> {
    let mut manifests = String::new();
    for definition in schema::definitions() {
        manifests += &serde_yaml::to_string(&definition)?;
        manifests += "---\n";
    }
    apply(cluster, &manifests).await?;
    kubectl(
        cluster,
        // Until then the API server answers 404 for objects of the new kinds.
        &["wait", "--for=condition=Established", "crd", "--all"],
    )
    .await?;
    let connection = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: tsdp-system}}\n\
         ---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: network}}\n\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: tailscale, namespace: tsdp-system}}\n\
         stringData: {{api_key: {key}}}\n\
         ---\napiVersion: tailnet.dev/v1alpha1\nkind: TailscaleTailnet\nmetadata: {{name: default}}\n\
         spec:\n  apiURL: {url}\n  credentialsSecret: {{name: tailscale}}\n  pollInterval: 2s\n  \
         attributesInterval: 10s\n  requestBudget: {{perSecond: 50, burst: 50}}\n  \
         maxChangedDevices: 100%\n  allowedPolicies: [{{namespaces: {{names: [network]}}}}]\n",
        key = examples::API_KEY,
    );
    apply(cluster, &connection).await
}

async fn show(cluster: &ControlPlane) -> Result<(), AnyError> {
    println!("$ kubectl apply -f deploy/examples/…");
    apply(cluster, &examples::POLICIES.join("\n---\n")).await?;
    let ready = [
        "-n",
        "network",
        "wait",
        "tsdp",
        "--all",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    kubectl(cluster, &ready).await?;
    println!("$ kubectl get tsdp -A -o wide");
    println!(
        "{}",
        kubectl(cluster, &["get", "tsdp", "-A", "-o", "wide"]).await?
    );
    println!("$ kubectl get tstn");
    println!("{}", kubectl(cluster, &["get", "tstn"]).await?);
    Ok(())
}

fn farewell(cluster: &ControlPlane, url: &str) -> String {
    format!(
        "Continue in another terminal:\n\n\
         \x20 export KUBECONFIG={kubeconfig}\n\
         \x20 alias kubectl={kubectl}\n\
         \x20 kubectl -n network describe tsdp fra-router\n\
         \x20 kubectl -n network edit tsdp fra-router\n\
         \x20 kubectl explain tsdp.spec.postureAttributes\n\n\
         The tailnet is simulated. Inspect it, or change something behind the controller's back:\n\n\
         \x20 curl {url}/_sim/requests\n\
         \x20 curl -X PATCH {url}/_sim/devices/nRx7k2Qp4CNTRL -d '{{\"tags\": [\"tag:db\", \"tag:ci\"]}}'\n\n\
         Ctrl-C ends the demo, and leaves nothing behind.",
        kubeconfig = cluster.kubeconfig().display(),
        kubectl = cluster.kubectl().display(),
    )
}

async fn apply(cluster: &ControlPlane, manifests: &str) -> Result<(), AnyError> {
    let mut child = command(cluster)
        .args(["apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(manifests.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

async fn kubectl(cluster: &ControlPlane, args: &[&str]) -> Result<String, AnyError> {
    let output = command(cluster).args(args).output().await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )
        .into())
    }
}

fn command(cluster: &ControlPlane) -> Command {
    let mut command = Command::new(cluster.kubectl());
    command.arg("--kubeconfig").arg(cluster.kubeconfig());
    command
}
