//! Builds a client from a Secret, again each time the credential changes.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client as Cluster,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::mpsc, time::sleep};
use tracing::{info, warn};

use super::{
    budget::{TailnetBudget, request_budget},
    channel::EngineConnection,
    failures::{failure, missing, unread, unusable},
    identity::OwnAccount,
    reread::Reread,
    secret::{self, Data, Login},
};
use crate::{
    api::{Reason, TailscaleTailnetSpec},
    controller::serve::{metrics::Metrics, webhook::Webhooks},
    tailnet::{Failure, Message, Retry},
    tailscale::{self, Client, Credential},
};

/// The dependencies of every connection.
#[derive(Clone)]
pub(in crate::controller) struct Connector {
    cluster: Cluster,
    /// The controller's own namespace.
    namespace: String,
    /// The controller's own service account, if it is known.
    service_account: Option<String>,
    webhooks: Webhooks,
    metrics: Arc<Metrics>,
}

/// How long a list of the Secret may take.
const LIST: Duration = Duration::from_secs(10);

impl Connector {
    pub fn new(
        cluster: Cluster,
        namespace: String,
        service_account: Option<String>,
        webhooks: Webhooks,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cluster,
            namespace,
            service_account,
            webhooks,
            metrics,
        }
    }

    /// The controller's own namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Keeps a tailnet connected as its spec and its Secret describe, forever.
    pub async fn keep(
        self,
        tailnet: String,
        spec: TailscaleTailnetSpec,
        budget: TailnetBudget,
        line: EngineConnection,
        mut reread: Reread,
    ) {
        let name = spec.credentials_secret.name.as_str();
        let secrets: Api<Secret> = Api::namespaced(self.cluster.clone(), &self.namespace);
        let place = format!("{}/{name}", self.namespace);
        let mut events = watch(&secrets, name);
        // None: nothing has been seen yet. Some(None): there is no such Secret.
        let mut last: Option<Option<Data>> = None;
        loop {
            let is_waited_for = reread.is_awaited();
            let event = tokio::select! {
                event = events.next() => match event {
                    Some(event) => event.map_err(|error| error.to_string()),
                    None => return,
                },
                // The watch may lag behind what was stored when the lease was won, so the Secret is
                // listed again.
                () = reread.asked() => {
                    events = watch(&secrets, name);
                    continue;
                }
                // The connection to the API server may be dead.
                () = sleep(LIST), if is_waited_for => {
                    events = watch(&secrets, name);
                    Err(format!("the API server did not answer within {LIST:?}"))
                }
            };
            let data = match event {
                // A Secret without data exists: it lacks a credential, and is not missing.
                Ok(secret) => secret.map(|secret| secret.data.unwrap_or_default()),
                Err(error) => {
                    warn!("the Secret {place} cannot be watched: {error}");
                    // A client that works stays in use while the API server is away, but a new leader
                    // does not wait forever.
                    if last.is_none() || reread.is_overdue() {
                        line.hand_over(Err(unread(&place, &error)));
                        // So that the same data connects again once the Secret can be read.
                        last = None;
                        reread.done();
                    }
                    continue;
                }
            };
            // An edit of labels or annotations keeps the client, and with it the access token.
            if last.as_ref() != Some(&data) {
                if !self.take(&place, &tailnet, &spec, &budget, data.as_ref(), &line) {
                    return;
                }
                last = Some(data);
            }
            // After the handover: a term may start once the engine has this credential.
            reread.done();
        }
    }

    /// Connects with what the Secret has now. Returns whether the engine still listens.
    fn take(
        &self,
        place: &str,
        tailnet: &str,
        spec: &TailscaleTailnetSpec,
        budget: &TailnetBudget,
        data: Option<&Data>,
        line: &EngineConnection,
    ) -> bool {
        let client = match data {
            None => Err(missing(place)),
            Some(data) => self.connect(place, tailnet, spec, budget, data),
        };
        self.take_webhooks(place, tailnet, data, line.mailbox());
        line.hand_over(client)
    }

    fn connect(
        &self,
        place: &str,
        tailnet: &str,
        spec: &TailscaleTailnetSpec,
        budget: &TailnetBudget,
        data: &Data,
    ) -> Result<Client, Failure> {
        let credential = self.credential(data).map_err(|error| {
            let message = format!("The Secret {place} {error}");
            failure(Reason::CredentialsMissing, message, Retry::Later)
        })?;
        let invalid = |error: String| failure(Reason::Invalid, error, Retry::Never);
        let url = spec.api_url().parse();
        let url =
            url.map_err(|error| invalid(format!("spec.apiURL {}: {error}", spec.api_url())))?;
        let settings = tailscale::Settings {
            budget: request_budget(spec).map_err(|error| invalid(error.0))?,
            // An edit of the Secret must not end a pause that the server asked for
            // (docs/decisions/0009-one-connection-one-set-of-rules.md).
            bucket: Some(budget.bucket()),
            observer: Some(self.metrics.observer(tailnet, budget.bucket())),
            ..tailscale::Settings::new(url, spec.tailnet())
        };
        let client = Client::new(settings, credential).map_err(|error| unusable(place, &error))?;
        info!("using the credential of the Secret {place}");
        Ok(client)
    }

    fn credential(&self, data: &Data) -> Result<Credential, &'static str> {
        Ok(match secret::login(data)? {
            Login::ApiKey(key) => Credential::ApiKey(key),
            Login::OAuth {
                client_id,
                client_secret,
            } => Credential::OAuth {
                client_id,
                client_secret,
            },
            Login::WorkloadIdentity {
                client_id,
                audience,
            } => {
                let account = self.service_account.as_deref().ok_or(
                    "has audience, but the controller does not know its own service account: \
                     start it with --service-account or POD_SERVICE_ACCOUNT, as deploy/ does.",
                )?;
                let cluster = self.cluster.clone();
                let source = OwnAccount::new(cluster, &self.namespace, account, audience);
                Credential::WorkloadIdentity {
                    client_id,
                    source: Arc::new(source),
                }
            }
        })
    }

    fn take_webhooks(
        &self,
        place: &str,
        tailnet: &str,
        data: Option<&Data>,
        mailbox: &mpsc::UnboundedSender<Message>,
    ) {
        match data.map_or(Ok(None), secret::webhook_secret) {
            Ok(Some(secret)) => self.webhooks.accept(tailnet, secret, mailbox.clone()),
            Ok(None) => self.webhooks.refuse(tailnet),
            Err(error) => {
                // The previous secret may have been revoked, so it does not stay in use.
                warn!("webhooks are not accepted: the Secret {place} {error}");
                self.webhooks.refuse(tailnet);
            }
        }
    }
}

/// Watches one Secret; `None` while it does not exist.
fn watch(secrets: &Api<Secret>, name: &str) -> BoxStream<'static, watcher::Result<Option<Secret>>> {
    watcher::watch_object(secrets.clone(), name)
        .default_backoff()
        .boxed()
}
