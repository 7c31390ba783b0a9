//! One run of the planner: the plan, and all of its inputs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::view::View;
use crate::{
    cli::{prune_from::PruneFrom, snapshot::Snapshot},
    model::ChangeLimit,
    plan::{Admission, PolicyInput, PolicyKey, TailnetPlan},
    tailscale::{Client, Error},
};

/// A snapshot of a tailnet, and the plan of policies for it.
pub(in crate::cli) struct PlanRun {
    pub policies: Vec<PolicyInput>,
    /// The guardrails of the tailnet.
    pub admission: Admission,
    /// The maximum number of changed devices.
    pub limit: ChangeLimit,
    /// The policies that someone approved over the limit.
    pub approved_over_limit: BTreeSet<PolicyKey>,
    pub snapshot: Snapshot,
    pub tailnet_plan: TailnetPlan,
    /// The time of the plan.
    pub now: Timestamp,
}

impl PlanRun {
    /// Reads the tailnet and plans.
    pub async fn make(
        client: &Client,
        mut policies: Vec<PolicyInput>,
        admission: Admission,
        earlier: &PruneFrom,
        limit: ChangeLimit,
    ) -> Result<Self, Error> {
        let mut snapshot = Snapshot::new(client).await?;
        // After the list, so that nothing in it is later than the plan.
        let now = Timestamp::now();
        // Before the plan: the records decide what is released.
        earlier.restore_records(&mut policies, &snapshot.fleet, now);
        let tailnet_plan = snapshot
            .plan(client, &policies, &admission, limit, now)
            .await?;
        Ok(Self {
            policies,
            admission,
            limit,
            approved_over_limit: BTreeSet::new(),
            snapshot,
            tailnet_plan,
            now,
        })
    }

    /// Plans again with the same snapshot, after approvals or a new limit.
    pub fn replan(&mut self) {
        self.tailnet_plan = self.snapshot.replan(
            &self.policies,
            &self.admission,
            self.limit,
            &self.approved_over_limit,
            self.now,
        );
    }

    /// The plan for output.
    pub fn view(&self) -> View<'_> {
        View::of(&self.policies, &self.tailnet_plan, &self.snapshot, self.now)
    }
}
