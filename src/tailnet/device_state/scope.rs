//! What requests in flight read or write of a device, and which lists are older than their answers.

use crate::{plan::Call, tailnet::Request};

/// What a request reads or writes of a device.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// What a list shows.
    Device,
    /// Its routes, by a read that shows nothing else.
    Routes,
    /// Its attributes, which no list shows.
    Attributes,
}

impl Scope {
    /// The scope of a request.
    pub const fn of(request: &Request) -> Self {
        match request {
            Request::Routes(_) => Self::Routes,
            Request::Attributes(_) => Self::Attributes,
            Request::Write(call) => Self::of_write(call),
            Request::Devices | Request::Device(_) => Self::Device,
        }
    }

    /// The scope of a write.
    pub const fn of_write(call: &Call) -> Self {
        match call {
            Call::WriteAttributes(_) => Self::Attributes,
            _ => Self::Device,
        }
    }
}

/// The requests of a device in flight, and the engine's revision at the last answers.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Those that change or read what lists show.
    of_device: u32,
    /// Reads of its routes, and requests for its attributes.
    of_parts: u32,
    device_revision: u64,
    /// At the last answer that showed the device.
    read_revision: u64,
    routes_revision: u64,
    /// A list that may be older than a write showed it otherwise than it is known.
    in_doubt: bool,
}

impl InFlight {
    pub const fn any(&self) -> bool {
        self.of_device > 0 || self.of_parts > 0
    }

    pub const fn sent(&mut self, scope: Scope) {
        *self.count(scope) += 1;
    }

    pub const fn not_sent(&mut self, scope: Scope) {
        let count = self.count(scope);
        *count = count.saturating_sub(1);
    }

    pub const fn answered(&mut self, scope: Scope, revision: u64) {
        self.not_sent(scope);
        match scope {
            Scope::Device => self.device_revision = revision,
            Scope::Routes => self.routes_revision = revision,
            Scope::Attributes => {}
        }
    }

    pub const fn is_newer_than(&self, requested_at: u64) -> bool {
        self.of_device > 0 || self.device_revision > requested_at
    }

    /// Whether an answer shows it as it was after a list was requested at this revision.
    pub const fn is_read_since(&self, requested_at: u64) -> bool {
        self.read_revision > requested_at
    }

    /// The last answer has shown it.
    pub const fn shown(&mut self) {
        self.read_revision = self.device_revision;
        self.in_doubt = false;
    }

    pub const fn doubt(&mut self) {
        self.in_doubt = true;
    }

    pub const fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    pub const fn settle(&mut self) {
        self.in_doubt = false;
    }

    pub const fn has_newer_routes(&self, requested_at: u64) -> bool {
        self.routes_revision > requested_at
    }

    const fn count(&mut self, scope: Scope) -> &mut u32 {
        match scope {
            Scope::Device => &mut self.of_device,
            Scope::Routes | Scope::Attributes => &mut self.of_parts,
        }
    }
}
