//! Where the connection of a tailnet comes from: its resource, the environment, or nowhere.

use crate::{
    controller::connect::{
        budget::TailnetBudget,
        environment::{self, Environment},
        failures::no_tailnet,
        settings::unconnected,
    },
    tailnet::Message,
};

/// The tailnets that have a resource are known once they have been listed. One may come from the
/// environment, until a resource replaces it for the lifetime of the process.
pub(super) struct Sources {
    environment: Option<Environment>,
    /// Whether the tailnets have ever been listed.
    listed: bool,
}

impl Sources {
    pub fn new(environment: Option<Environment>) -> Self {
        Self {
            environment,
            listed: false,
        }
    }

    /// Whether the tailnets have ever been listed.
    pub fn are_listed(&self) -> bool {
        self.listed
    }

    /// All tailnets have been listed.
    pub fn set_listed(&mut self) {
        self.listed = true;
    }

    /// The name of the tailnet from the environment, if it is in use.
    pub fn environment_tailnet(&self) -> Option<&'static str> {
        self.environment.as_ref().map(|_| environment::DEFAULT)
    }

    /// A tailnet has a resource. Returns the budget of the connection from the environment, if the resource
    /// replaces it.
    pub fn replace_environment(&mut self, tailnet: &str) -> Option<TailnetBudget> {
        if tailnet != environment::DEFAULT {
            return None;
        }
        self.environment.take().map(|replaced| replaced.budget())
    }

    /// The message to the engine of a tailnet without a resource.
    pub fn without_resource(&self, tailnet: &str) -> Message {
        let environment = self
            .environment
            .as_ref()
            .filter(|_| tailnet == environment::DEFAULT);
        environment.map_or_else(
            // Nobody permits or forbids anything there.
            || Message::Connection {
                settings: Some(Box::new(unconnected())),
                client: Err(no_tailnet(tailnet)),
            },
            Environment::message,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::Reason,
        controller::{FromEnvironment, serve::metrics::Metrics},
        tailscale::{self, Credential},
    };

    fn from_environment() -> Environment {
        tailscale::install_crypto_provider();
        let from = FromEnvironment {
            settings: tailscale::Settings::new("http://127.0.0.1:9".parse().unwrap(), "-"),
            credential: Credential::ApiKey("tskey-api-a".to_owned().into()),
        };
        Environment::connect(from, "tsdp-system", &Arc::new(Metrics::default())).unwrap()
    }

    /// The reason why a tailnet without a resource has no client, if it has none.
    fn why_unconnected(sources: &Sources, tailnet: &str) -> Option<Reason> {
        match sources.without_resource(tailnet) {
            Message::Connection { client, .. } => client.err().map(|failure| failure.reason),
            _ => unreachable!("another message"),
        }
    }

    #[test]
    fn only_the_default_tailnet_comes_from_the_environment() {
        let sources = Sources::new(Some(from_environment()));
        assert_eq!(sources.environment_tailnet(), Some(environment::DEFAULT));
        assert_eq!(why_unconnected(&sources, environment::DEFAULT), None);
        let missing = Some(Reason::TailnetNotFound);
        assert_eq!(why_unconnected(&sources, "other"), missing);
    }

    #[test]
    fn resource_of_its_name_replaces_the_environment_permanently() {
        let mut sources = Sources::new(Some(from_environment()));
        assert!(sources.replace_environment("other").is_none());
        assert!(sources.replace_environment(environment::DEFAULT).is_some());
        assert!(sources.replace_environment(environment::DEFAULT).is_none());
        assert_eq!(sources.environment_tailnet(), None);
        let missing = Some(Reason::TailnetNotFound);
        assert_eq!(why_unconnected(&sources, environment::DEFAULT), missing);
    }
}
