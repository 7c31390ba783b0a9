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
    /// At the last read of the device.
    read_revision: u64,
    routes_revision: u64,
    /// A list that crossed a write shows other facts than those that are known.
    contradicted: bool,
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

    /// Whether it was read after a list was requested at this revision.
    pub const fn is_read_since(&self, requested_at: u64) -> bool {
        self.read_revision > requested_at
    }

    /// The last answer was a read of it.
    pub const fn read(&mut self) {
        self.read_revision = self.device_revision;
    }

    pub const fn contradict(&mut self) {
        self.contradicted = true;
    }

    pub const fn is_contradicted(&self) -> bool {
        self.contradicted
    }

    /// A read or a newer list shows what it is like now.
    pub const fn settle(&mut self) {
        self.contradicted = false;
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
