//! From a Secret to a client: again whenever the credential changes.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client as Cluster,
    runtime::{WatchStreamExt as _, watcher},
};
use secrecy::SecretString;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::metrics::Metrics;
use crate::{
    api::{Reason, TailscaleTailnetSpec},
    model::Refused,
    tailnet::{Failure, Input, Message, Retry, Settings},
    tailscale::{self, Budget, Client, Credential},
};

/// Keeps a tailnet connected as its spec and its Secret say, for ever.
pub(super) async fn keep(
    cluster: Cluster,
    namespace: String,
    tailnet: String,
    spec: TailscaleTailnetSpec,
    mailbox: mpsc::UnboundedSender<Message>,
    metrics: Arc<Metrics>,
) {
    match settings(&spec) {
        Ok(settings) => {
            let _ = mailbox.send(Message::Input(Input::Settings(settings)));
        }
        Err(refused) => {
            let _ = mailbox.send(Message::Client(Err(failure(
                Reason::Invalid,
                refused.0,
                Retry::Never,
            ))));
            return;
        }
    }
    let name = spec.credentials_secret.name.as_str();
    let place = format!("{namespace}/{name}");
    let secrets: Api<Secret> = Api::namespaced(cluster, &namespace);
    let mut events = watcher::watch_object(secrets, name)
        .default_backoff()
        .boxed();
    // None: nothing has been seen yet. Some(None): there is no such Secret.
    let mut last: Option<Option<BTreeMap<String, ByteString>>> = None;
    while let Some(event) = events.next().await {
        let data = match event {
            Ok(secret) => secret.map(|secret| secret.data.unwrap_or_default()),
            Err(error) => {
                warn!("the Secret {place} cannot be watched: {error}");
                if last.is_none() {
                    let message = format!("The Secret {place} cannot be read: {error}.");
                    let unread = failure(Reason::CredentialsMissing, message, Retry::Later);
                    let _ = mailbox.send(Message::Client(Err(unread)));
                }
                continue;
            }
        };
        if last.as_ref() == Some(&data) {
            continue;
        }
        let client = match &data {
            None => Err(missing(&place)),
            Some(data) => connect(&place, &tailnet, &spec, data, &metrics),
        };
        if client.is_ok() {
            info!("the credential of the Secret {place} is in use");
        }
        last = Some(data);
        if mailbox.send(Message::Client(client)).is_err() {
            return;
        }
    }
}

fn settings(spec: &TailscaleTailnetSpec) -> Result<Settings, Refused> {
    Ok(Settings {
        poll_interval: spec.poll_interval()?,
        attributes_interval: spec.attributes_interval()?,
        requests_per_second: f64::from(spec.requests_per_second().get()),
    })
}

fn connect(
    place: &str,
    tailnet: &str,
    spec: &TailscaleTailnetSpec,
    data: &BTreeMap<String, ByteString>,
    metrics: &Arc<Metrics>,
) -> Result<Client, Failure> {
    let credential = credential(data).map_err(|fault| {
        failure(
            Reason::CredentialsMissing,
            format!("The Secret {place} {fault}"),
            Retry::Later,
        )
    })?;
    let invalid = |fault: String| failure(Reason::Invalid, fault, Retry::Never);
    let url = spec.api_url().parse();
    let url = url.map_err(|fault| invalid(format!("spec.apiURL {}: {fault}", spec.api_url())))?;
    let per_second = f64::from(spec.requests_per_second().get());
    let settings = tailscale::Settings {
        budget: Budget::new(per_second, spec.request_burst().get())
            .map_err(|fault| invalid(fault.0))?,
        observer: Some(metrics.observer(tailnet)),
        ..tailscale::Settings::new(url, spec.tailnet())
    };
    Client::new(settings, credential)
        .map_err(|error| failure(Reason::ApiUnreachable, error.to_string(), Retry::Later))
}

/// The keys are those of Tailscale's own operator, so that one Secret serves both.
fn credential(data: &BTreeMap<String, ByteString>) -> Result<Credential, String> {
    let text = |key: &str| -> Result<Option<String>, String> {
        let Some(bytes) = data.get(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes.0)
            .map_err(|_| format!("has bytes in {key} that are no text."))?;
        // A trailing line feed comes with every file.
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    };
    match (text("api_key")?, text("client_id")?, text("client_secret")?) {
        (Some(key), None, None) => Ok(Credential::ApiKey(SecretString::from(key))),
        (None, Some(client_id), Some(secret)) => Ok(Credential::OAuth {
            client_id,
            client_secret: SecretString::from(secret),
        }),
        (None, None, None) => {
            Err("is empty: write api_key, or client_id and client_secret.".to_owned())
        }
        (None, Some(_), None) => Err("has client_id without client_secret: write both.".to_owned()),
        (None, None, Some(_)) => Err("has client_secret without client_id: write both.".to_owned()),
        (Some(_), ..) => Err(
            "has api_key beside client_id or client_secret: keep one of the two ways.".to_owned(),
        ),
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
