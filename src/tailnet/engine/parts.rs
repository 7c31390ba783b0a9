//! The parts that each phase reads, and those that it changes.
//!
//! A phase cannot touch any other part of the engine.

use super::{
    Engine, closing::Closing, declared::Declarations, dispatch::Dispatch, list::Listing,
    planning::Planning, publish::Publishing, reads::Reads, targeting::Targeting, writes::Outcomes,
};

impl Engine {
    /// For the answer of a read.
    pub(super) const fn reads(&mut self) -> Reads<'_> {
        Reads {
            settings: &self.settings,
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &self.policies,
            devices: &mut self.devices,
            dirty: &mut self.dirty,
            rng: &mut self.rng,
        }
    }

    /// For a list of devices.
    pub(super) const fn listing(&mut self) -> Listing<'_> {
        Listing {
            settings: &self.settings,
            // The list shows which scopes the credential lacks.
            gate: &mut self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            matching: &mut self.matching,
            devices: &mut self.devices,
            dirty: &mut self.dirty,
            rng: &mut self.rng,
        }
    }

    /// For the answer of a write.
    pub(super) const fn outcomes(&mut self) -> Outcomes<'_> {
        Outcomes {
            settings: &self.settings,
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            tailnet_wide: &self.tailnet_wide,
            devices: &mut self.devices,
            dirty: &mut self.dirty,
            outbox: &mut self.outbox,
            rng: &mut self.rng,
        }
    }

    /// For what people declare.
    pub(super) const fn declarations(&mut self) -> Declarations<'_> {
        Declarations {
            settings: &mut self.settings,
            gate: &mut self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            matching: &mut self.matching,
            tailnet_wide: &mut self.tailnet_wide,
            devices: &mut self.devices,
            change_budget: &mut self.change_budget,
            dirty: &mut self.dirty,
            statuses: &mut self.statuses,
            outbox: &mut self.outbox,
        }
    }

    /// Second phase.
    pub(super) const fn targeting(&mut self) -> Targeting<'_> {
        Targeting {
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            matching: &mut self.matching,
            tailnet_wide: &mut self.tailnet_wide,
            devices: &mut self.devices,
            records: &mut self.records,
            dirty: &mut self.dirty,
            outbox: &mut self.outbox,
        }
    }

    /// Third phase.
    pub(super) const fn planning(&mut self) -> Planning<'_> {
        Planning {
            settings: &self.settings,
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            tailnet_wide: &mut self.tailnet_wide,
            devices: &mut self.devices,
            queues: &mut self.queues,
            change_budget: &mut self.change_budget,
            records: &mut self.records,
            dirty: &mut self.dirty,
            outbox: &mut self.outbox,
            rng: &mut self.rng,
        }
    }

    /// Fourth phase.
    pub(super) const fn dispatching(&mut self) -> Dispatch<'_> {
        Dispatch {
            settings: &self.settings,
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            matching: &self.matching,
            devices: &mut self.devices,
            queues: &mut self.queues,
            change_budget: &mut self.change_budget,
            dirty: &mut self.dirty,
            outbox: &mut self.outbox,
        }
    }

    /// Fifth phase.
    pub(super) const fn closing(&mut self) -> Closing<'_> {
        Closing {
            settings: &self.settings,
            gate: &self.gate,
            observed: &mut self.observed,
            policies: &mut self.policies,
            devices: &mut self.devices,
            queues: &self.queues,
            change_budget: &mut self.change_budget,
            records: &mut self.records,
            dirty: &mut self.dirty,
            statuses: &mut self.statuses,
            outbox: &mut self.outbox,
        }
    }

    /// Last phase.
    pub(super) const fn publishing(&mut self) -> Publishing<'_> {
        Publishing {
            settings: &self.settings,
            gate: &self.gate,
            observed: &self.observed,
            policies: &mut self.policies,
            matching: &self.matching,
            devices: &self.devices,
            queues: &self.queues,
            change_budget: &self.change_budget,
            records: &self.records,
            dirty: &self.dirty,
            statuses: &mut self.statuses,
            outbox: &mut self.outbox,
        }
    }
}
