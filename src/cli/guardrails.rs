//! The guardrails that a command applies. They come from the manifests, and a saved plan stores them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    api::TailscaleTailnetSpec,
    convert::GuardrailsSource,
    model::Refused,
    plan::{Admission, Guardrails, Labels},
};

/// The source of the guardrails.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeclaredGuardrails {
    /// The guardrails of the tailnet. `None` if its `TailscaleTailnet` is not among the manifests: then there
    /// are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tailnet: Option<TailscaleTailnetSpec>,
    /// The controller's own namespace.
    controller_namespace: String,
    /// The labels of the namespaces, as far as they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<String, Labels>,
}

impl DeclaredGuardrails {
    /// Takes the guardrails from a tailnet, if it is among the manifests.
    pub fn new(
        tailnet: Option<&TailscaleTailnetSpec>,
        controller_namespace: &str,
        namespaces: BTreeMap<String, Labels>,
    ) -> Self {
        Self {
            // Only the guardrails: a saved plan must hold nothing of the connection.
            tailnet: tailnet.map(|spec| TailscaleTailnetSpec {
                allowed_policies: spec.allowed_policies.clone(),
                protected_devices: spec.protected_devices.clone(),
                suspend: spec.suspend,
                ..TailscaleTailnetSpec::default()
            }),
            controller_namespace: controller_namespace.to_owned(),
            namespaces,
        }
    }

    /// Parses the guardrails for the planner.
    pub fn read(&self) -> Result<Admission, UnreadableGuardrails> {
        let guardrails = self
            .tailnet
            .as_ref()
            .map(|spec| {
                Guardrails::try_from(GuardrailsSource {
                    spec,
                    own_namespace: &self.controller_namespace,
                })
            })
            .transpose();
        Ok(Admission {
            guardrails: guardrails
                .map_err(UnreadableGuardrails)?
                // Without the object there are none: it may exist in the cluster only.
                .unwrap_or_default(),
            namespaces: self.namespaces.clone(),
        })
    }
}

/// The guardrails of a tailnet are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the TailscaleTailnet: {0}")]
pub(super) struct UnreadableGuardrails(Refused);
