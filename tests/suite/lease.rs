//! Leader election, against a real API server: never two leaders, never none for long.

use std::{net::SocketAddr, num::NonZeroU16, path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tsdp::{
    controller::election::{Election, Leadership, Timings},
    tailnet::Term,
};

use crate::support::{Kubectl, control_plane, eventually};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn dead_leader_is_replaced_and_a_live_one_is_not() {
    let control_plane = control_plane().await;
    let first = elector(control_plane.client(), "first", 3);
    wins(&first).await;
    let second = elector(control_plane.client(), "second", 3);

    first.task.abort();

    takes_over(&second, &first).await;
}

#[tokio::test]
async fn leader_without_responses_stops_before_another_starts() {
    let control_plane = control_plane().await;
    let cable = CancellationToken::new();
    let behind_cable = client_through(&control_plane.kubeconfig(), cable.clone()).await;
    let mut first = elector(behind_cable, "first", 3);
    first.leadership.next(None).await;
    let second = elector(control_plane.client(), "second", 3);

    // From here on its requests get neither a response nor a refusal.
    cable.cancel();

    takes_over(&second, &first).await;
    let term = Some(Term::FIRST);
    assert_eq!(first.leadership.next(term).await, None);
}

#[tokio::test]
async fn released_lease_is_taken_long_before_it_would_expire() {
    let control_plane = control_plane().await;
    let first = elector(control_plane.client(), "first", 3600);
    wins(&first).await;
    let second = elector(control_plane.client(), "second", 3);

    first.shutdown.cancel();
    first.task.await.unwrap();

    assert!(first.leadership.term().is_none());
    wins(&second).await;
}

#[tokio::test]
async fn get_create_and_update_on_the_lease_are_sufficient_permissions() {
    let control_plane = control_plane().await;
    let admin = Kubectl::admin(&control_plane);
    admin.ok(&["create", "serviceaccount", "tsdp"]).await;
    admin.apply(ROLES).await;
    let kubeconfig = control_plane
        .kubeconfig_for("default", "tsdp")
        .await
        .unwrap();

    let elector = elector(client(&kubeconfig).await, "it", 15);
    wins(&elector).await;
    let lease = admin.get(&["lease", "tsdp"]).await;
    assert_eq!(lease["spec"]["holderIdentity"], "it");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);

    elector.shutdown.cancel();
    elector.task.await.unwrap();
    let lease = admin.get(&["lease", "tsdp"]).await;
    assert_eq!(lease["spec"]["holderIdentity"], serde_json::Value::Null);
}

/// `create` cannot be limited to a name: the API server does not know it yet.
const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: election}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
- {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [tsdp], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: election}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: election}
subjects: [{kind: ServiceAccount, name: tsdp}]
";

struct Elector {
    leadership: Leadership,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

fn elector(client: Client, identity: &str, lease_seconds: u16) -> Elector {
    let timings = Timings::of_lease(NonZeroU16::new(lease_seconds).unwrap());
    let shutdown = CancellationToken::new();
    let (leadership, election) = Election::new(client, "default", "tsdp", identity, timings);
    let task = tokio::spawn(election.run(shutdown.clone()));
    Elector {
        leadership,
        task,
        shutdown,
    }
}

async fn wins(elector: &Elector) {
    eventually(LIMIT, async || {
        if elector.leadership.term().is_some() {
            Ok(())
        } else {
            Err("it does not lead")
        }
    })
    .await;
}

async fn takes_over(new: &Elector, old: &Elector) {
    eventually(LIMIT, async || {
        if new.leadership.term().is_none() {
            return Err("the new one does not lead");
        }
        assert!(old.leadership.term().is_none(), "both lead");
        Ok(())
    })
    .await;
}

async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

async fn client(kubeconfig: &Path) -> Client {
    Client::try_from(config(kubeconfig).await).unwrap()
}

/// A client whose connections stay open and silent once `cable` is cut.
async fn client_through(kubeconfig: &Path, cable: CancellationToken) -> Client {
    let mut config = config(kubeconfig).await;
    let server: SocketAddr = config
        .cluster_url
        .authority()
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    config.cluster_url = format!("https://{here}").parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let cable = cable.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.unwrap();
                cable
                    .run_until_cancelled(copy_bidirectional(&mut near, &mut far))
                    .await;
                if cable.is_cancelled() {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    Client::try_from(config).unwrap()
}
