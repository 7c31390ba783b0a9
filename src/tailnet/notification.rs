use super::{Effect, Engine, Failure, HeldPlan, MissedExpiry};
use crate::{
    model::NodeId,
    plan::{Difference, Field, Forbidden, PolicyKey},
};

/// What somebody should be told when it happens, once.
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
        /// What came back.
        failure: Failure,
    },
    /// Changes wait for an approval.
    Held(HeldPlan),
    /// They were approved, and are sent.
    Approved(HeldPlan),
    /// Keys are not expired at a time, and never will be for it.
    Missed(MissedExpiry),
    /// A device keeps joining and leaving the policy by what it claims of itself, and stays where it is.
    Flapping {
        /// The device.
        node: NodeId,
        /// What people call it.
        label: String,
    },
    /// The tailnet does not allow the policy.
    Refused(Forbidden),
}

impl Engine {
    /// Says something, to those who wrote the policy.
    pub(super) fn notify(&mut self, key: &PolicyKey, notification: Notification) {
        if self.leads() {
            self.effects
                .push(Effect::Notify(key.clone(), Box::new(notification)));
        }
    }
}
