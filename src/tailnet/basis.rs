//! The read that a request depends on: one that sends unmanaged values along, or cannot be undone, is sent only
//! while that read is fresh.

use std::time::Duration;

use super::device_state::DeviceState;
use crate::plan::Call;

impl DeviceState {
    /// The read that a request depends on: one that sends unmanaged values along, or cannot be undone.
    pub fn rests_on(&self, call: &Call) -> Basis {
        match call {
            Call::SetRoutes(..) if self.plan().owners.share_routes() => {
                Basis::Read(self.routes_read_at())
            }
            Call::SetTags(..) if self.plan().owners.share_tags() => Basis::Read(self.read_at()),
            Call::ExpireKey(_) | Call::Delete(_) => Basis::Read(self.read_at()),
            _ => Basis::None,
        }
    }
}

/// The read that a request depends on besides the plan.
#[derive(Debug, Clone, Copy)]
pub(super) enum Basis {
    /// Nothing.
    None,
    /// A read of the device that must be fresh; its time (monotonic), if it was made.
    Read(Option<Duration>),
}

impl Basis {
    /// Whether the request may be sent now.
    pub fn is_fresh(self, fresh_for: Duration, now: Duration) -> bool {
        self.until(fresh_for).is_none_or(|until| now < until)
    }

    /// The time from which on the request may not be sent; `None`: no limit.
    pub fn until(self, fresh_for: Duration) -> Option<Duration> {
        match self {
            Self::None => None,
            // Without a read, nothing is fresh.
            Self::Read(read) => Some(read.map_or(Duration::ZERO, |at| at + fresh_for)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_request_that_depends_on_a_read_may_be_sent_only_while_the_read_is_fresh() {
        let read = Basis::Read(Some(at(5)));
        assert!(read.is_fresh(FRESH, at(14)) && !read.is_fresh(FRESH, at(15)));
        assert_eq!(read.until(FRESH), Some(at(15)));
        assert!(!Basis::Read(None).is_fresh(FRESH, at(0)));
    }

    #[test]
    fn other_requests_may_be_sent_at_any_time() {
        assert!(Basis::None.is_fresh(FRESH, at(1_000)));
        assert_eq!(Basis::None.until(FRESH), None);
    }

    #[test]
    fn what_cannot_be_undone_depends_on_a_read_of_the_device() {
        let id: crate::model::NodeId = "n1CNTRL".parse().unwrap();
        let mut node = DeviceState::default();
        assert!(
            !node
                .rests_on(&Call::Delete(id.clone()))
                .is_fresh(FRESH, at(1))
        );
        let device = crate::model::Device::plain(id.clone());
        node.take_device(device, at(0));
        assert!(node.rests_on(&Call::Delete(id)).is_fresh(FRESH, at(1)));
        // Attributes are written one by one, so nothing else is sent along.
        let attributes = Call::WriteAttributes(std::collections::BTreeMap::new());
        assert!(node.rests_on(&attributes).is_fresh(FRESH, at(100)));
    }
}
