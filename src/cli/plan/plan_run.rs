//! What policies would change in a tailnet now, and all that this came from.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::view::View;
use crate::{
    cli::{prune_from::PruneFrom, snapshot::Snapshot},
    model::ChangeLimit,
    plan::{Admission, PolicyInput, PolicyKey, TailnetPlan},
    tailscale::{Client, Error},
};

/// A look at a tailnet, and its comparison with policies.
pub(in crate::cli) struct Proposal {
    pub policies: Vec<PolicyInput>,
    /// What the tailnet permits.
    pub guards: Admission,
    /// How many devices may be changed.
    pub limit: ChangeLimit,
    /// The policies that somebody has released from the limit.
    pub released: BTreeSet<PolicyKey>,
    pub snapshot: Snapshot,
    pub survey: TailnetPlan,
    /// When it was made.
    pub now: Timestamp,
}

impl Proposal {
    /// Looks and compares.
    pub async fn make(
        client: &Client,
        mut policies: Vec<PolicyInput>,
        guards: Admission,
        earlier: &PruneFrom,
        limit: ChangeLimit,
    ) -> Result<Self, Error> {
        let mut snapshot = Snapshot::new(client).await?;
        let now = Timestamp::now();
        earlier.remind(&mut policies, &snapshot.fleet, now);
        let survey = snapshot
            .plan(client, &policies, &guards, limit, now)
            .await?;
        Ok(Self {
            policies,
            guards,
            limit,
            released: BTreeSet::new(),
            snapshot,
            survey,
            now,
        })
    }

    /// Compares anew what was read, as policies were released.
    pub fn compare(&mut self) {
        self.survey = self.snapshot.compare(
            &self.policies,
            &self.guards,
            self.limit,
            &self.released,
            self.now,
        );
    }

    /// As it is told.
    pub fn view(&self) -> View<'_> {
        View::of(&self.policies, &self.survey, &self.snapshot, self.now)
    }
}
