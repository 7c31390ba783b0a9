//! The guards that a command keeps to: those that stand among the manifests, and go into a plan that is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    api::TailscaleTailnetSpec,
    plan::{Admission, Guardrails, GuardrailsSource, Labels},
};

/// What guards come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeclaredGuardrails {
    /// What the tailnet declares. Where it is not among what was read, nobody has declared any guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tailnet: Option<TailscaleTailnetSpec>,
    /// The controller's own namespace.
    controller_namespace: String,
    /// The labels of the namespaces that are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    namespaces: BTreeMap<String, Labels>,
}

impl DeclaredGuardrails {
    /// The guards of a tailnet, if it is among what was read.
    pub fn new(
        tailnet: Option<&TailscaleTailnetSpec>,
        controller_namespace: &str,
        namespaces: BTreeMap<String, Labels>,
    ) -> Self {
        // Nothing of the connection.
        let guards = |spec: &TailscaleTailnetSpec| TailscaleTailnetSpec {
            allowed_policies: spec.allowed_policies.clone(),
            protected_devices: spec.protected_devices.clone(),
            suspend: spec.suspend,
            ..TailscaleTailnetSpec::default()
        };
        Self {
            tailnet: tailnet.map(guards),
            controller_namespace: controller_namespace.to_owned(),
            namespaces,
        }
    }

    /// As the plan takes them.
    pub fn read(&self) -> Result<Admission, String> {
        let guardrails = self.tailnet.as_ref().map(|spec| {
            Guardrails::try_from(GuardrailsSource {
                spec,
                own_namespace: &self.controller_namespace,
            })
        });
        let guardrails = guardrails.transpose();
        Ok(Admission {
            guardrails: guardrails
                .map_err(|refused| format!("the TailscaleTailnet: {refused}"))?
                .unwrap_or_default(),
            namespaces: self.namespaces.clone(),
        })
    }
}
