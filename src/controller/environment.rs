//! The connection that the environment of the process describes (`--tailnet-from-env`). It is the tailnet
//! `default` until there is a `TailscaleTailnet` of that name, which takes its place for good.

use std::sync::Arc;

use super::{
    connection::{self, TailnetBudget},
    metrics::Metrics,
};
use crate::{
    api::TailscaleTailnetSpec,
    model::Refused,
    tailnet::{Message, Settings},
    tailscale::{self, Client, Credential, SetupError},
};

/// The name under which policies find it.
pub(super) const DEFAULT: &str = "default";

/// What the environment says.
#[derive(Debug, Clone)]
pub struct FromEnvironment {
    /// Where the API is, which tailnet, and how fast it is asked.
    pub settings: tailscale::Settings,
    /// What proves who asks.
    pub credential: Credential,
}

/// The connection, made.
#[derive(Clone)]
pub(super) struct Environment {
    client: Client,
    settings: Settings,
    budget: TailnetBudget,
}

/// Why the connection of the environment cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The client cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The defaults cannot be used.
    #[error("{0}")]
    Settings(#[from] Refused),
}

impl Environment {
    /// Makes it. What no resource says is as in one that says nothing: only policies of the controller's
    /// own namespace are allowed.
    pub fn connect(
        from: FromEnvironment,
        own_namespace: &str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, EnvironmentError> {
        let settings = connection::settings(&TailscaleTailnetSpec::default(), own_namespace)?;
        let budget = TailnetBudget::new(from.settings.base_url.as_str(), from.settings.budget);
        let observed = tailscale::Settings {
            observer: Some(metrics.observer(DEFAULT)),
            bucket: Some(budget.bucket()),
            ..from.settings
        };
        Ok(Self {
            client: Client::new(observed, from.credential)?,
            settings,
            budget,
        })
    }

    /// What the engine is told of it.
    pub fn message(&self) -> Message {
        Message::Connection {
            settings: Some(Box::new(self.settings.clone())),
            client: Ok(self.client.clone()),
        }
    }

    /// The budget that it has used.
    pub fn budget(&self) -> TailnetBudget {
        self.budget.clone()
    }
}
