//! The requests of a device that are in flight, and the lists that are older than its last answer.

use super::{DeviceState, Scope};
use crate::model::Device;

impl DeviceState {
    /// Whether a request for it is in flight.
    pub const fn is_busy(&self) -> bool {
        self.in_flight.any()
    }

    /// A request for it is sent.
    pub const fn request_sent(&mut self, scope: Scope) {
        self.in_flight.sent(scope);
    }

    /// Counts one request as answered. `revision`: the engine's, with this answer.
    pub const fn request_finished(&mut self, scope: Scope, revision: u64) {
        self.in_flight.answered(scope, revision);
    }

    /// A request was not sent after all.
    pub const fn request_not_sent(&mut self, scope: Scope) {
        self.in_flight.not_sent(scope);
    }

    /// Whether a list that was requested at this revision may be older than the last write or read of it.
    /// Lists have no attributes, so requests for those do not count.
    pub const fn is_newer_than(&self, requested_at: u64) -> bool {
        self.in_flight.is_newer_than(requested_at)
    }

    /// A list that was requested at this revision shows the device, and may be older than what is known
    /// ([`Self::is_newer_than`]). If it shows other facts, a read must tell before the next write.
    pub fn note_older(&mut self, known: &Device, listed: &Device, requested_at: u64) {
        let listed = Device {
            // It changes by itself.
            last_seen: known.last_seen,
            ..listed.clone()
        };
        if !self.in_flight.is_read_since(requested_at) && known.facts_differ(&listed) {
            self.in_flight.contradict();
        }
    }

    /// Whether it must be read before the next write.
    pub const fn is_contradicted(&self) -> bool {
        self.in_flight.is_contradicted()
    }

    /// Whether its routes were read after a list was requested at this revision.
    pub const fn has_newer_routes(&self, requested_at: u64) -> bool {
        self.in_flight.has_newer_routes(requested_at)
    }
}
