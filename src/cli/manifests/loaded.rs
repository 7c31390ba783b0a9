//! The objects of a set of files.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::document::Document;
use crate::{
    api::{TailscaleDeviceInvite, TailscaleDevicePolicy, TailscaleTailnet},
    convert,
    plan::{Labels, PolicyInput, PolicyKey},
};

/// An object with its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object. Its namespace is always set.
    pub object: T,
    /// The document, for the places of fields.
    pub document: Document,
}

/// A policy with its document, parsed for the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedPolicy {
    /// The object. Its namespace is always set.
    pub object: TailscaleDevicePolicy,
    /// The document, for the places of fields.
    pub document: Document,
    /// The policy as the planner takes it: new, without a status.
    pub input: PolicyInput,
}

impl From<Located<TailscaleDevicePolicy>> for LoadedPolicy {
    fn from(Located { object, document }: Located<TailscaleDevicePolicy>) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = PolicyKey::new(
            text(&object.metadata.namespace),
            text(&object.metadata.name),
        );
        // Of equal age, as a file does not say which policy is older.
        let created = Timestamp::UNIX_EPOCH;
        let input = convert::policy(key, String::new(), 0, created, &object.spec, None);
        Self {
            object,
            document,
            input,
        }
    }
}

/// The objects of a set of files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// The policies.
    pub policies: Vec<LoadedPolicy>,
    /// The policies with errors, without the fields that have them. Only for the checks between objects.
    pub incomplete_policies: Vec<LoadedPolicy>,
    /// The tailnets.
    pub tailnets: Vec<Located<TailscaleTailnet>>,
    /// The tailnets with errors outside of their rules for policies. Only for the checks between objects.
    pub incomplete_tailnets: Vec<Located<TailscaleTailnet>>,
    /// The names of all tailnets, with the invalid ones.
    pub tailnet_names: BTreeSet<String>,
    /// The invites.
    pub invites: Vec<Located<TailscaleDeviceInvite>>,
    /// The labels of the Namespace objects.
    pub namespaces: BTreeMap<String, Labels>,
    /// The number of objects of tailnet.dev, with the invalid ones.
    pub found: usize,
    /// The number of objects of other kinds, which are ignored.
    pub others: usize,
    /// The number of files.
    pub files: usize,
}
