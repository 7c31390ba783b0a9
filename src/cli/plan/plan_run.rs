//! One run of the planner: the plan, and all of its inputs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::view::View;
use crate::{
    cli::{prune_from::PruneFrom, snapshot::Snapshot},
    model::ChangeLimit,
    plan::{Admission, CauseContext, DevicePlan, History, PolicyInput, PolicyKey, TailnetPlan},
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
        let mut plan_run = Self {
            policies,
            admission,
            limit,
            approved_over_limit: BTreeSet::new(),
            snapshot,
            tailnet_plan,
            now,
        };
        plan_run.set_causes();
        Ok(plan_run)
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
        self.set_causes();
    }

    /// Says which changes correct drift. Only the status of an object knows what was in sync before, so the
    /// changes of files have no cause.
    fn set_causes(&mut self) {
        let histories: BTreeMap<&PolicyKey, History> = self
            .policies
            .iter()
            .filter_map(|it| Some((&it.key, it.status_state.history?)))
            .collect();
        if histories.is_empty() {
            return;
        }
        for (node, plan) in &mut self.tailnet_plan.devices {
            let Some(device) = self.snapshot.fleet.get(node) else {
                continue;
            };
            let first = |key: &PolicyKey| histories.get(key).unwrap_or(&History::New).cause(device);
            let context = CauseContext {
                written: &|_| None,
                first: &first,
                joined: &|_| false,
            };
            plan.set_causes(&DevicePlan::default(), &context);
        }
    }

    /// The plan for output.
    pub fn view(&self) -> View<'_> {
        View::of(&self.policies, &self.tailnet_plan, &self.snapshot, self.now)
    }
}
