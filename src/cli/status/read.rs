//! What the page is made of, as the cluster has it.

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, Client, api::ListParams};

use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet},
    cli::{process::AnyError, server_error},
    controller::LEASE,
};

/// The objects of a cluster that the page is about.
pub(super) struct Cluster {
    /// The lease of the controller. `Err`: why it is unknown.
    pub lease: Result<Option<Lease>, AnyError>,
    /// The images of the controller, as far as they can be read.
    pub images: Vec<String>,
    pub tailnets: Vec<DeserializeGuard<TailscaleTailnet>>,
    pub policies: Vec<DeserializeGuard<TailscaleDevicePolicy>>,
}

/// Reads them.
pub(super) async fn cluster(client: &Client, namespace: &str) -> Result<Cluster, AnyError> {
    let all = ListParams::default();
    let tailnets: Api<DeserializeGuard<TailscaleTailnet>> = Api::all(client.clone());
    let policies: Api<DeserializeGuard<TailscaleDevicePolicy>> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let (tailnets, policies, lease, images) = tokio::join!(
        tailnets.list(&all),
        policies.list(&all),
        leases.get_opt(LEASE),
        images(client, namespace),
    );
    Ok(Cluster {
        // A reader of policies need not be permitted to read the controller's namespace.
        lease: lease.map_err(server_error::of),
        images,
        tailnets: tailnets.map_err(server_error::of)?.items,
        policies: policies.map_err(server_error::of)?.items,
    })
}

/// The images of the controller's Deployments; none if they cannot be read.
async fn images(client: &Client, namespace: &str) -> Vec<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let own = ListParams::default().labels("app.kubernetes.io/name=tsdp");
    let Ok(listed) = deployments.list(&own).await else {
        return Vec::new();
    };
    let pods = listed
        .items
        .into_iter()
        .filter_map(|it| it.spec?.template.spec);
    let mut images: Vec<String> = pods
        .flat_map(|pod| pod.containers)
        .filter_map(|container| container.image)
        .collect();
    images.sort();
    images.dedup();
    images
}
