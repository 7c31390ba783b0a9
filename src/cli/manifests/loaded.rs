//! The objects of a set of files.

use std::collections::BTreeMap;

use super::document::Document;
use crate::{
    api::{TailscaleDeviceInvite, TailscaleDevicePolicy, TailscaleTailnet},
    plan::Labels,
};

/// An object with its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object. Its namespace is always set.
    pub object: T,
    /// The document, for the places of fields.
    pub document: Document,
}

/// The objects of a set of files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// The policies.
    pub policies: Vec<Located<TailscaleDevicePolicy>>,
    /// The tailnets.
    pub tailnets: Vec<Located<TailscaleTailnet>>,
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
