//! From the spec of a tailnet to the settings of its engine.

use std::time::Duration;

use crate::{
    api::TailscaleTailnetSpec,
    convert::GuardrailsSource,
    model::{ChangeLimit, Refused},
    plan::Guardrails,
    tailnet::Settings,
};

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

/// The settings that a spec describes.
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
