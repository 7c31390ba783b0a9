use super::{Failure, HeldPlan, MissedExpiry};
use crate::{
    model::NodeId,
    plan::{Difference, Field},
};

/// An event that people are notified of once, when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A difference was removed.
    Changed(Box<Difference>),
    /// A change was not accepted.
    Failed {
        /// The device.
        device: String,
        /// The setting.
        field: Field,
        /// The failure.
        failure: Failure,
    },
    /// Changes are pending approval.
    Held(HeldPlan),
    /// The held changes were approved and are sent.
    Approved(HeldPlan),
    /// Keys were not expired at the declared time, and will not be.
    Missed(MissedExpiry),
    /// A device keeps joining and leaving the policy by what it reports about itself; its membership is
    /// frozen.
    Flapping {
        /// The device.
        node: NodeId,
        /// Its display name.
        label: String,
    },
    /// A device has left the policy because someone has signed in on it again: its tags are gone, or its user
    /// is another one.
    SignedIn {
        /// The device.
        node: NodeId,
        /// Its display name.
        label: String,
        /// Its settings are cleared once its new owner is confirmed.
        is_cleared: bool,
    },
}
