//! The connection from the environment of the process (`--tailnet-from-env`). It is the tailnet
//! `default` until there is a `TailscaleTailnet` of that name, which replaces it permanently.

use std::sync::Arc;

use super::{budget::TailnetBudget, settings};
use crate::{
    api::TailscaleTailnetSpec,
    controller::serve::metrics::Metrics,
    model::Refused,
    tailnet::{Message, Settings},
    tailscale::{self, Client, Credential, SetupError},
};

/// The name of the tailnet for policies.
pub(in crate::controller) const DEFAULT: &str = "default";

/// The connection that the environment describes.
#[derive(Debug, Clone)]
pub struct FromEnvironment {
    /// The API's address, the tailnet, and the request budget.
    pub settings: tailscale::Settings,
    /// The credential.
    pub credential: Credential,
}

/// The established connection.
#[derive(Clone)]
pub(in crate::controller) struct Environment {
    client: Client,
    settings: Settings,
    budget: TailnetBudget,
}

/// Why the connection from the environment cannot be set up.
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
    /// Sets it up. All other settings have their defaults: only policies of the controller's own
    /// namespace are allowed.
    pub fn connect(
        from: FromEnvironment,
        own_namespace: &str,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, EnvironmentError> {
        let settings = settings::settings(&TailscaleTailnetSpec::default(), own_namespace)?;
        let budget = TailnetBudget::new(from.settings.base_url.as_str(), from.settings.budget);
        metrics
            .declare(DEFAULT)
            .declared(Some(settings.poll_interval));
        let observed = tailscale::Settings {
            observer: Some(metrics.observer(DEFAULT, budget.bucket())),
            bucket: Some(budget.bucket()),
            ..from.settings
        };
        Ok(Self {
            client: Client::new(observed, from.credential)?,
            settings,
            budget,
        })
    }

    /// The message to the engine.
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
