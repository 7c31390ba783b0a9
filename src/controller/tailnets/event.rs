//! The events that the registry handles.

use tokio::sync::mpsc;

use crate::{
    controller::watch::event::Event,
    tailnet::{DeviceLookup, Term},
};

/// An event for the registry.
pub(in crate::controller) enum ControllerEvent {
    /// An event of the watches of this round.
    Watched(u64, Event),
    /// The term in which this process leads, if any.
    Term(Option<Term>),
    /// The connection of this number, of this tailnet, has read its credential in this round.
    Reread(String, u64, u64),
    /// A lookup of a device for an invite.
    DeviceLookup(String, DeviceLookup),
}

/// Passes lookups of devices on to the engines.
#[derive(Clone)]
pub(in crate::controller) struct Lookups(mpsc::UnboundedSender<ControllerEvent>);

impl Lookups {
    pub fn new(events: mpsc::UnboundedSender<ControllerEvent>) -> Self {
        Self(events)
    }

    /// Asks the engine of a tailnet; `false` if the process ends.
    pub fn look_up(&self, tailnet: &str, lookup: DeviceLookup) -> bool {
        let event = ControllerEvent::DeviceLookup(tailnet.to_owned(), lookup);
        self.0.send(event).is_ok()
    }
}
