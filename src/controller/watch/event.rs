//! The events of the watches of a round.

use k8s_openapi::api::core::v1::Namespace;

use super::stream::Change;
use crate::api::{TailscaleDevicePolicy, TailscaleTailnet};

/// An event of a watch.
pub(in crate::controller) enum Event {
    /// Of a policy, by the watch of this number.
    Policy(usize, Change<TailscaleDevicePolicy>),
    /// Of a tailnet.
    Tailnet(Change<TailscaleTailnet>),
    /// Of a namespace, by the watch of this number.
    Namespace(usize, Change<Namespace>),
}

impl Event {
    /// The watch that has listed everything with this event, if any.
    pub fn completes(&self) -> Option<Source> {
        match self {
            Self::Policy(number, Change::Listed(_)) => Some(Source::Policies(*number)),
            Self::Tailnet(Change::Listed(_)) => Some(Source::Tailnets),
            Self::Namespace(number, Change::Listed(_)) => Some(Source::Namespaces(*number)),
            _ => None,
        }
    }
}

/// The watched kinds; policies and namespaces may have several watches each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::controller) enum Source {
    Policies(usize),
    Tailnets,
    Namespaces(usize),
}
