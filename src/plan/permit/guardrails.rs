use std::{collections::BTreeSet, sync::Arc};

use super::{DeviceRule, Rule};
use crate::{model::Device, plan::Selector};

/// The guardrails of a tailnet. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guardrails {
    /// `None` allows everything.
    pub(super) rules: Option<Vec<Arc<Rule>>>,
    /// The only allowed namespace, if `allowedPolicies` is absent.
    pub(super) implied: Option<String>,
    pub(super) protected: Vec<DeviceRule>,
    pub(super) suspended: bool,
}

impl Guardrails {
    /// The guardrails of a tailnet that declares these rules.
    #[must_use]
    pub fn of_rules(rules: Vec<Rule>) -> Self {
        Self {
            rules: Some(rules.into_iter().map(Arc::new).collect()),
            ..Self::default()
        }
    }

    /// The guardrails of a tailnet that declares none: only policies of the controller's own namespace are
    /// allowed.
    #[must_use]
    pub fn of_namespace(own: &str) -> Self {
        let rule = Rule {
            names: Some(BTreeSet::from([own.to_owned()])),
            ..Rule::default()
        };
        Self {
            rules: Some(vec![Arc::new(rule)]),
            implied: Some(own.to_owned()),
            ..Self::default()
        }
    }

    /// These guardrails, with the devices that no policy may change, and whether all policies are suspended.
    #[must_use]
    pub fn with(self, protected: Vec<DeviceRule>, suspended: bool) -> Self {
        Self {
            protected,
            suspended,
            ..self
        }
    }

    /// The selectors of the devices that no policy may change, in the order of the manifest.
    pub fn protected(&self) -> impl Iterator<Item = &Selector> {
        self.protected.iter().map(|guarded| &guarded.selector)
    }

    /// Whether all policies are suspended.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.suspended
    }

    /// Whether a device is protected. To be safe, a device is protected if an expression fails on it, or if it
    /// is unknown whether a selector matches. The entry is not returned, because a policy's author must not
    /// learn it.
    #[must_use]
    pub fn protects(&self, device: &Device) -> bool {
        let mut protected = self.protected.iter();
        // A guardrail that cannot be decided protects: its author wanted to keep policies away.
        protected.any(|guarded| guarded.selector.check(device).unwrap_or(true))
    }

    /// Whether a device is protected whatever its unreadable fields are.
    pub(super) fn surely_protects(&self, device: &Device) -> bool {
        let mut protected = self.protected.iter();
        // A device that may be protected is held as unreadable, which says what must be corrected.
        protected.any(|guarded| {
            guarded.selector.check(device).unwrap_or(true)
                && guarded.selector.undecided_by(device).is_empty()
        })
    }
}
