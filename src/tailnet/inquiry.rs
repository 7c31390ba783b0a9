//! Questions of those who work beside the engine, through the same client and so the same budget.

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Engine, Failure, Retry, Settings};
use crate::{
    api::Reason,
    plan::{self, Approvals, Binding, DeviceTarget, Memory, Target},
    tailscale::Client,
};

/// Which device is meant, and how to reach it? Costs no request: the last list answers.
#[derive(Debug)]
pub struct Inquiry {
    /// The device in question.
    pub target: DeviceTarget,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Finding, Failure>>,
}

/// What an inquiry finds.
#[derive(Debug)]
pub struct Finding {
    /// The device, or why there is none.
    pub binding: Binding,
    /// The tailnet's own client.
    pub client: Client,
    /// How the tailnet is looked after.
    pub settings: Settings,
    /// Cancelled as soon as nothing may be written to the tailnet any longer by what was found: another
    /// connection takes the place of this one, the tailnet is suspended, or this process no longer leads.
    pub writable: CancellationToken,
}

impl Engine {
    /// Finds a device in the last list.
    pub(super) fn find(&self, target: &DeviceTarget) -> Result<Binding, Failure> {
        self.connection.clone()?;
        if let Some(failure) = self.polling.outage() {
            return Err(failure.clone());
        }
        if self.polling.seen == 0 {
            return Err(Failure {
                reason: Reason::NotStarted,
                message: "The first list of devices is being read.".to_owned(),
                retry: Retry::Later,
                unknown_outcome: false,
            });
        }
        let target = Target::Device(target.clone());
        Ok(plan::bind(
            &target,
            &Memory::default(),
            &Approvals::default(),
            &self.fleet,
        ))
    }
}
