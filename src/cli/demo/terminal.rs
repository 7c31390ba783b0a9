//! A reporter that prints to the terminal.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::{
    plan::PolicyKey,
    tailnet::{Notification, PolicyReport, Recorded, Reporter, State, TailnetReport, Term},
};

/// Prints each change, and knows which policies are in sync.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    in_sync: watch::Sender<BTreeMap<PolicyKey, bool>>,
    changes: watch::Sender<usize>,
}

impl Terminal {
    /// Waits until all these policies are in sync.
    pub async fn all_in_sync(&self, policies: &[PolicyKey]) {
        let mut in_sync = self.in_sync.subscribe();
        // `self` holds the sender, so that the channel cannot close.
        let _ = in_sync
            .wait_for(|known| policies.iter().all(|key| known.get(key) == Some(&true)))
            .await;
    }

    /// The number of changes so far.
    pub fn changes(&self) -> usize {
        *self.changes.borrow()
    }

    /// Waits until there are `more` changes than `before`.
    pub async fn changed_since(&self, before: usize, more: usize) {
        let _ = self
            .changes
            .subscribe()
            .wait_for(|now| *now >= before + more)
            .await;
    }
}

impl Reporter for Terminal {
    async fn policy(&self, _: Term, key: &PolicyKey, report: &PolicyReport) -> Recorded {
        let in_sync = match &report.state {
            State::Bound(device) => {
                !device.working && !device.unread && device.differences.is_empty()
            }
            _ => false,
        };
        self.in_sync.send_modify(|known| {
            known.insert(key.clone(), in_sync);
        });
        Recorded::Yes
    }

    async fn tailnet(&self, _: Term, _: &TailnetReport) -> bool {
        true
    }

    async fn notify(&self, _: Term, _: &PolicyKey, notification: &Notification) {
        match notification {
            Notification::Changed(difference) => {
                println!("  {:<14} {:#}", difference.device, difference.change);
                self.changes.send_modify(|changes| *changes += 1);
            }
            Notification::Failed {
                device,
                field,
                failure,
            } => {
                println!("  {device:<14} {field}: {}", failure.message);
            }
            // The demo has neither held changes nor one-shot actions.
            Notification::Held(_)
            | Notification::Approved(_)
            | Notification::Missed(_)
            | Notification::Flapping { .. }
            | Notification::SignedIn { .. } => {}
        }
    }
}
