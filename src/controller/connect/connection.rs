//! Builds a client from a Secret, again each time the credential changes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client as Cluster,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{
    environment::Environment,
    identity::OwnAccount,
    secret::{self, Data, Login},
};
use crate::{
    api::{Reason, TailscaleTailnetSpec},
    controller::{
        serve::{metrics::Metrics, webhook::Webhooks},
        watch::readiness::Readiness,
    },
    convert::GuardrailsSource,
    model::{ChangeLimit, Refused},
    plan::Guardrails,
    tailnet::{Failure, Message, Retry, Settings},
    tailscale::{self, Bucket, Budget, Client, Credential, SetupError},
};

/// The dependencies of every connection.
#[derive(Clone)]
pub(in crate::controller) struct Connector {
    pub cluster: Cluster,
    /// The controller's own namespace.
    pub namespace: String,
    /// The controller's own service account, if it is known.
    pub service_account: Option<String>,
    pub webhooks: Webhooks,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    /// The connection from the environment, until a resource replaces it.
    pub environment: Option<Environment>,
}

/// The bucket of one tailnet's requests, and the API that it is for: it outlives the clients.
#[derive(Debug, Clone)]
pub(in crate::controller) struct TailnetBudget {
    url: String,
    bucket: Arc<Bucket>,
}

impl TailnetBudget {
    /// A full bucket.
    pub fn new(url: &str, budget: Budget) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            bucket: Arc::new(Bucket::new(budget)),
        }
    }

    /// Whether it is the budget of this API.
    pub fn is_of(&self, url: &str) -> bool {
        self.url == url.trim_end_matches('/')
    }

    pub fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket)
    }
}

/// The channel from a connection to the engine of its tailnet. Once the connection is replaced,
/// nothing more of it arrives.
#[derive(Debug, Clone)]
pub(in crate::controller) struct EngineConnection {
    mailbox: mpsc::UnboundedSender<Message>,
    open: Arc<Mutex<bool>>,
}

impl EngineConnection {
    pub fn new(mailbox: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            mailbox,
            open: Arc::new(Mutex::new(true)),
        }
    }

    /// Passes the client on; `false` if the channel is closed.
    fn hand_over(&self, client: Result<Client, Failure>) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let message = Message::Connection {
            settings: None,
            client,
        };
        *open && self.mailbox.send(message).is_ok()
    }

    pub fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The part of a spec that determines the API and the credential: any other edit keeps the
/// connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::controller) struct Endpoint {
    url: String,
    tailnet: String,
    secret: String,
}

impl Endpoint {
    pub fn of(spec: &TailscaleTailnetSpec) -> Self {
        Self {
            url: spec.api_url().to_owned(),
            tailnet: spec.tailnet().to_owned(),
            secret: spec.credentials_secret.name.clone(),
        }
    }
}

/// Reads of the credential that a term of leadership requests.
pub(in crate::controller) struct Reread {
    asks: watch::Receiver<u64>,
    round: u64,
    /// Since when the round waits for the credential.
    waits: Option<Instant>,
    done: Box<dyn Fn(u64) + Send + Sync>,
}

impl Reread {
    /// The first round is the present one.
    pub fn new(mut asks: watch::Receiver<u64>, done: impl Fn(u64) + Send + Sync + 'static) -> Self {
        let round = *asks.borrow_and_update();
        Self {
            round,
            asks,
            waits: Some(Instant::now()),
            done: Box::new(done),
        }
    }

    /// Waits for the next round; for ever if there is no other.
    async fn asked(&mut self) {
        if self.asks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.round = *self.asks.borrow_and_update();
        self.waits = Some(Instant::now());
    }

    /// The credential was read, or the wait timed out, and the engine has the result.
    fn done(&mut self) {
        if self.waits.take().is_some() {
            (self.done)(self.round);
        }
    }

    fn is_overdue(&self) -> bool {
        self.waits
            .is_some_and(|since| since.elapsed() > REREAD_PATIENCE)
    }
}

/// How long a list of the Secret may take.
const LIST: Duration = Duration::from_secs(10);
/// How long a new leader waits before it reports that it cannot read a credential that it has read
/// before.
const REREAD_PATIENCE: Duration = Duration::from_secs(20);

impl Connector {
    /// Keeps a tailnet connected as its spec and its Secret describe, for ever.
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
        let watch = || {
            watcher::watch_object(secrets.clone(), name)
                .default_backoff()
                .boxed()
        };
        let mut events = watch();
        // None: nothing has been seen yet. Some(None): there is no such Secret.
        let mut last: Option<Option<Data>> = None;
        loop {
            let is_waited_for = reread.waits.is_some();
            let event = tokio::select! {
                event = events.next() => match event {
                    Some(event) => event.map_err(|error| error.to_string()),
                    None => return,
                },
                () = reread.asked() => {
                    events = watch();
                    continue;
                }
                // The connection to the API server may be dead.
                () = sleep(LIST), if is_waited_for => {
                    events = watch();
                    Err(format!("the API server did not answer within {LIST:?}"))
                }
            };
            let data = match event {
                Ok(secret) => secret.map(|secret| secret.data.unwrap_or_default()),
                Err(error) => {
                    warn!("the Secret {place} cannot be watched: {error}");
                    if last.is_none() || reread.is_overdue() {
                        let message = format!("The Secret {place} cannot be read: {error}.");
                        let unread = failure(Reason::CredentialsMissing, message, Retry::Later);
                        line.hand_over(Err(unread));
                        last = None;
                        reread.done();
                    }
                    continue;
                }
            };
            if last.as_ref() != Some(&data) {
                let client = match &data {
                    None => Err(missing(&place)),
                    Some(data) => self.connect(&place, &tailnet, &spec, &budget, data),
                };
                if client.is_ok() {
                    info!("using the credential of the Secret {place}");
                }
                self.take_webhooks(&place, &tailnet, data.as_ref(), &line.mailbox);
                last = Some(data);
                if !line.hand_over(client) {
                    return;
                }
            }
            reread.done();
        }
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
            bucket: Some(budget.bucket()),
            observer: Some(self.metrics.observer(tailnet)),
            ..tailscale::Settings::new(url, spec.tailnet())
        };
        Client::new(settings, credential).map_err(|error| unusable(place, &error))
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
                warn!("webhooks are not accepted: the Secret {place} {error}");
                self.webhooks.refuse(tailnet);
            }
        }
    }
}

/// How many requests a spec allows.
pub(in crate::controller) fn request_budget(
    spec: &TailscaleTailnetSpec,
) -> Result<Budget, Refused> {
    let per_second = f64::from(spec.requests_per_second().get());
    Budget::new(per_second, spec.request_burst().get())
}

pub(in crate::controller) fn settings(
    spec: &TailscaleTailnetSpec,
    own_namespace: &str,
) -> Result<Settings, Refused> {
    let source = GuardrailsSource {
        spec,
        own_namespace,
    };
    Ok(Settings {
        poll_interval: spec.poll_interval()?,
        attributes_interval: spec.attributes_interval()?,
        requests_per_second: f64::from(spec.requests_per_second().get()),
        limit: spec.max_changed_devices()?,
        guardrails: source.try_into()?,
    })
}

/// The settings until those of the tailnet are known; no request is sent before that.
pub(in crate::controller) fn unconnected() -> Settings {
    Settings {
        poll_interval: Duration::from_mins(1),
        attributes_interval: Duration::from_mins(10),
        requests_per_second: 5.0,
        limit: ChangeLimit::default(),
        guardrails: Guardrails::default(),
    }
}

/// Until the credential has been read.
pub(in crate::controller) fn connecting() -> Failure {
    failure(
        Reason::Progressing,
        "The controller is connecting.".to_owned(),
        Retry::Later,
    )
}

pub(in crate::controller) fn invalid_tailnet(refused: Refused) -> Failure {
    failure(Reason::Invalid, refused.0, Retry::Never)
}

pub(in crate::controller) fn no_tailnet(name: &str) -> Failure {
    let message = format!(
        "There is no TailscaleTailnet '{name}'. Nothing is sent. Create it, or correct \
         spec.tailnetRef."
    );
    failure(Reason::TailnetNotFound, message, Retry::Later)
}

pub(in crate::controller) fn unreadable_tailnet(name: &str, error: &str) -> Failure {
    let message = format!(
        "The TailscaleTailnet '{name}' cannot be parsed: {error}. Nothing is sent. Correct it."
    );
    failure(Reason::Invalid, message, Retry::Never)
}

/// Settings or a credential from which no client can be built: only an edit helps, except for the
/// system's certificates.
fn unusable(place: &str, error: &SetupError) -> Failure {
    match error {
        SetupError::BaseUrl => failure(
            Reason::Invalid,
            format!("spec.apiURL: {error}"),
            Retry::Never,
        ),
        SetupError::Tailnet(_) => failure(
            Reason::Invalid,
            format!("spec.tailnet: {error}"),
            Retry::Never,
        ),
        SetupError::Credential => {
            let message = format!("The Secret {place}: {error}.");
            failure(Reason::CredentialsMissing, message, Retry::Never)
        }
        SetupError::Http(_) => failure(Reason::ApiUnreachable, error.to_string(), Retry::Later),
    }
}

fn missing(place: &str) -> Failure {
    let (namespace, name) = place.split_once('/').unwrap_or_default();
    let message = format!(
        "There is no Secret {place}. Create it: kubectl -n {namespace} create secret generic {name} \
         --from-literal=api_key=tskey-api-…"
    );
    failure(Reason::CredentialsMissing, message, Retry::Later)
}

fn failure(reason: Reason, message: String, retry: Retry) -> Failure {
    Failure {
        reason,
        message,
        retry,
        unknown_outcome: false,
    }
}
