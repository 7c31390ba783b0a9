//! The plans of a device, each with the causes of its differences.

use super::DeviceState;
use crate::plan::{CauseContext, ChangeCause, DevicePlan, PolicyKey};

impl DeviceState {
    /// A policy targets it. `joins`: the policy was complete without it.
    pub fn adopt(&mut self, key: &PolicyKey, joins: bool) {
        let is_new = self.policies.insert(key.clone());
        if joins && is_new {
            self.joined.insert(key.clone());
        }
    }

    /// Takes a new plan. `first`: the cause of a difference that a policy has on a device that was not
    /// compared before.
    pub fn set_plan(&mut self, mut plan: DevicePlan, first: impl Fn(&PolicyKey) -> ChangeCause) {
        plan.set_causes(
            &self.plan,
            &CauseContext {
                written: &|field| self.progress.cause_of_written(field),
                first: &first,
                joined: &|key| self.joined.contains(key),
            },
        );
        self.plan = plan;
        if self.plan.complete() {
            let plan = &self.plan;
            self.joined.retain(|key| plan.of(key).next().is_some());
        }
    }

    /// A policy that targets it was edited.
    pub fn note_edit(&mut self, key: &PolicyKey) {
        self.forget_backoffs_of(key);
        self.joined.remove(key);
    }
}
