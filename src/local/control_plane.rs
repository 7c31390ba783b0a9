//! One control plane: etcd and kube-apiserver with a folder of their own.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    Binaries, Error, failed_to, last_lines,
    process::{Guard, Process, free_ports},
};

/// A start takes about 4 s. Ten at once on two cores take longer.
const START_TIMEOUT: Duration = Duration::from_mins(2);
/// The number of tries with other ports, in case another process takes one first.
const ATTEMPTS: u32 = 5;
const ISSUER: &str = "https://kubernetes.default.svc";

/// A running control plane. Dropping it ends its processes and removes its folder.
///
/// Without a [`ControllerManager`], nothing collects garbage or terminates deleted namespaces.
pub struct ControlPlane {
    // Dropped in this order: the guard before the processes that it watches, the folder last.
    _guard: Guard,
    _apiserver: Process,
    _etcd: Process,
    client: Client,
    server: String,
    kubectl: PathBuf,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts a control plane and waits until its API server is ready.
    pub async fn start(binaries: &Binaries) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::try_start(binaries).await {
                Err(Error::Start { tail, .. })
                    if attempt < ATTEMPTS && tail.contains("address already in use") =>
                {
                    // Another process took a port between its choice and its use.
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start(binaries: &Binaries) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("tsdp-control-plane-")
            .tempdir()
            .map_err(|source| Error::Io {
                what: "make a temporary folder".to_owned(),
                source,
            })?;
        let [etcd_port, peer_port, port] = free_ports()?;
        let server = format!("https://127.0.0.1:{port}");
        let token = random_token();
        // Before the server starts, which reads the tokens once.
        write_private(
            &folder.path().join("tokens.csv"),
            &format!("{},admin,admin,\"system:masters\"\n", token.expose_secret()),
        )?;
        let kubeconfig = kubeconfig_path(folder.path(), "admin");
        write_private(
            &kubeconfig,
            &kubeconfig_text(folder.path(), &server, "admin", &token),
        )?;

        let mut etcd = Process::start(
            "etcd",
            &binaries.etcd,
            &etcd_args(folder.path(), etcd_port, peer_port),
            folder.path(),
        )?;
        let mut apiserver = Process::start(
            "kube-apiserver",
            &binaries.kube_apiserver,
            &apiserver_args(folder.path(), etcd_port, port),
            folder.path(),
        )?;
        let guard = Guard::over(&[&etcd, &apiserver], folder.path())?;
        // After the guard: if this fails or is interrupted, the processes end all the same.
        let client = when_ready(&kubeconfig, &mut etcd, &mut apiserver).await?;
        Ok(Self {
            _guard: guard,
            _apiserver: apiserver,
            _etcd: etcd,
            client,
            server,
            kubectl: binaries.kubectl.clone(),
            folder,
        })
    }

    /// The administrator's kubeconfig. Only this user can read it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig_path(self.folder.path(), "admin")
    }

    /// A kubectl of the server's version.
    #[must_use]
    pub fn kubectl(&self) -> &Path {
        &self.kubectl
    }

    /// The API server's URL.
    #[must_use]
    pub fn server_url(&self) -> &str {
        &self.server
    }

    /// A client with the administrator's rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig that acts as an existing service account, with its rights and no others.
    ///
    /// Its token (`TokenRequest`) is valid for an hour.
    pub async fn kubeconfig_for(&self, namespace: &str, name: &str) -> Result<PathBuf, Error> {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![ISSUER.to_owned()],
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = Api::<ServiceAccount>::namespaced(self.client(), namespace)
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .map_err(|source| Error::Refused {
                what: format!("make a token for {user}"),
                source: Box::new(source),
            })?;
        let token =
            SecretString::from(answer.status.map(|status| status.token).unwrap_or_default());
        let path = kubeconfig_path(self.folder.path(), &format!("{namespace}.{name}"));
        write_private(
            &path,
            &kubeconfig_text(self.folder.path(), &self.server, &user, &token),
        )?;
        Ok(path)
    }
}

/// A kube-controller-manager that collects garbage and terminates namespaces. Dropping it ends the process.
pub struct ControllerManager {
    _guard: Guard,
    _process: Process,
}

impl ControlPlane {
    /// Starts a kube-controller-manager. The first start builds the program.
    pub async fn controller_manager(
        &self,
        binaries: &Binaries,
    ) -> Result<ControllerManager, Error> {
        let program = binaries.kube_controller_manager().await?;
        let args = controller_manager_args(self.folder.path(), &self.kubeconfig());
        let folder = self.folder.path();
        let process = Process::start("kube-controller-manager", &program, &args, folder)?;
        Ok(ControllerManager {
            _guard: Guard::over(&[&process], folder)?,
            _process: process,
        })
    }
}

fn controller_manager_args(folder: &Path, kubeconfig: &Path) -> Vec<String> {
    let key = folder.join("certificates").join("apiserver.key");
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--service-account-private-key-file={}", key.display()),
        "--use-service-account-credentials=false".to_owned(),
        // The only one, so an election would only delay its start.
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--controllers=namespace-controller,garbage-collector-controller".to_owned(),
    ]
}

fn etcd_args(folder: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // The data may be lost if the machine crashes.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn apiserver_args(folder: &Path, etcd_port: u16, port: u16) -> Vec<String> {
    let certificates = folder.join("certificates");
    // The server creates a certificate and an RSA key for itself before it reads the keys for service
    // accounts (Options.Complete in k8s.io/kubernetes/pkg/controlplane/apiserver/options), so one key
    // serves both and the tests need not create any.
    let key = certificates.join("apiserver.key");
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Otherwise it looks for a default route, which a machine without a network does not have.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", certificates.display()),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", key.display()),
        format!("--service-account-signing-key-file={}", key.display()),
        format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // The plugin waits for default service accounts, which nothing creates here.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

/// Polls until the API server is ready. Fails as soon as a process ends.
async fn when_ready(
    kubeconfig: &Path,
    etcd: &mut Process,
    apiserver: &mut Process,
) -> Result<Client, Error> {
    let since = Instant::now();
    let what = loop {
        if let Some(end) = etcd.ended().or_else(|| apiserver.ended()) {
            break end;
        }
        // A new client each time: one that read an empty or incomplete certificate would never trust the
        // server.
        // etcd is checked last: if its port was taken, the API server may be ready on a foreign etcd.
        if let Some(client) = client_of(kubeconfig).await
            && is_ready(&client).await
            && etcd.ended().is_none()
        {
            return Ok(client);
        }
        if since.elapsed() > START_TIMEOUT {
            break format!(
                "kube-apiserver was not ready after {} s",
                START_TIMEOUT.as_secs()
            );
        }
        sleep(Duration::from_millis(100)).await;
    };
    let mut tail = String::new();
    for (name, log) in [("etcd", etcd.log()), ("kube-apiserver", apiserver.log())] {
        let _ = writeln!(tail, "{name}:\n{}", last_lines(&log, 15));
    }
    Err(Error::Start { what, tail })
}

async fn client_of(kubeconfig: &Path) -> Option<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).ok()?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .ok()?;
    // The kube client uses the environment's proxy even for 127.0.0.1.
    config.proxy_url = None;
    Client::try_from(config).ok()
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else {
        return false;
    };
    // A server that is starting may accept a connection and answer nothing.
    let answer = timeout(Duration::from_secs(2), client.request_text(request)).await;
    matches!(answer, Ok(Ok(text)) if text == "ok")
}

fn kubeconfig_path(folder: &Path, user: &str) -> PathBuf {
    folder.join(format!("{user}.kubeconfig"))
}

fn kubeconfig_text(folder: &Path, server: &str, user: &str, token: &SecretString) -> String {
    let certificate = folder.join("certificates").join("apiserver.crt");
    let content = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tsdp",
        "clusters": [{"name": "tsdp", "cluster": {"server": server, "certificate-authority": certificate}}],
        "users": [{"name": user, "user": {"token": token.expose_secret()}}],
        "contexts": [{"name": "tsdp", "context": {"cluster": "tsdp", "user": user, "namespace": "default"}}],
    });
    // JSON is YAML.
    content.to_string()
}

fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    // With its mode from the start: to restrict it later would leave a moment for other users.
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed_to("write", path))?;
    file.write_all(content.as_bytes())
        .map_err(failed_to("write", path))
}

fn random_token() -> SecretString {
    let mut bytes = [0_u8; 16];
    #[expect(
        clippy::expect_used,
        reason = "the system's randomness has no failure to recover from"
    )]
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("randomness");
    let mut token = String::with_capacity(32);
    for byte in bytes {
        let _ = write!(token, "{byte:02x}");
    }
    SecretString::from(token)
}
