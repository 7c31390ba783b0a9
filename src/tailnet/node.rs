use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Request, failure::Setback};
use crate::{
    model::{Attributes, NodeId},
    plan::{Call, DevicePlan, Field, PolicyKey, next_call},
};

/// The attributes of a device and when they were read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub values: Attributes,
    pub at: Duration,
}

/// A device that policies hold: what is known and under way about it.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub policies: BTreeSet<PolicyKey>,
    pub attributes: Option<Reading>,
    pub plan: DevicePlan,
    /// Requests about it that are under way.
    pub busy: u32,
    /// The engine's count of writes when it was written last; an older list does not count.
    pub touched: u64,
    /// The device must be looked at before anything else: what it is like is not known.
    pub look: bool,
    /// Its attributes must be read again, whatever their age.
    pub look_attributes: bool,
    /// Its routes have been read for the very next call.
    pub routes_fresh: bool,
    /// Fields that were written and not seen since. Empty: nothing to confirm.
    pub unconfirmed: BTreeSet<Field>,
    /// Fields that were written and looked at since: do they still differ?
    pub looked_at: BTreeSet<Field>,
    pub setbacks: BTreeMap<Field, Setback>,
    pub look_setback: Option<Setback>,
    pub attributes_setback: Option<Setback>,
}

/// What to do next about a device.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, until something changes or this time comes.
    Rest(Option<Duration>),
    /// Something is under way.
    Wait,
    /// Look at something first.
    Look(Request),
    /// Write attributes, together with those of other devices.
    WriteAttributes,
    /// Make this call.
    Call(Call),
    /// See whether what was written is there.
    Confirm,
}

impl Node {
    /// `remembered`: what the policies must not forget is kept. `refresh`: the age at which
    /// attributes are read again.
    pub fn next_step(
        &self,
        id: &NodeId,
        remembered: bool,
        refresh: Duration,
        now: Duration,
    ) -> Step {
        if self.busy > 0 {
            return Step::Wait;
        }
        if let Some(setback) = self
            .look_setback
            .as_ref()
            .filter(|setback| !setback.is_over(now))
        {
            return Step::Rest(Some(setback.retry_at));
        }
        if self.look {
            return Step::Look(Request::Device(id.clone()));
        }
        if self.attributes_due(refresh, now) {
            return Step::Look(Request::Attributes(id.clone()));
        }
        if self.plan.routes_unread {
            return Step::Look(Request::Routes(id.clone()));
        }
        match next_call(&self.plan, &self.blocked(now)) {
            Some(_) if !remembered => Step::Wait,
            Some((Call::WriteAttributes(_), _)) => Step::WriteAttributes,
            // Somebody may have approved a route since the list: a call that replaces the whole
            // list carries what nobody here decides, as it is now.
            Some((Call::SetRoutes(..), _))
                if self.plan.claims.share_routes() && !self.routes_fresh =>
            {
                Step::Look(Request::Routes(id.clone()))
            }
            Some((call, _)) => Step::Call(call),
            None if !self.unconfirmed.is_empty() => Step::Confirm,
            None => Step::Rest(self.rest_until(refresh)),
        }
    }

    /// The fields that must wait, as a call for them failed a moment ago.
    pub fn blocked(&self, now: Duration) -> BTreeSet<Field> {
        let waiting = self
            .setbacks
            .iter()
            .filter(|(_, setback)| !setback.is_over(now));
        waiting.map(|(field, _)| field.clone()).collect()
    }

    fn attributes_due(&self, refresh: Duration, now: Duration) -> bool {
        let waits = self
            .attributes_setback
            .as_ref()
            .is_some_and(|setback| !setback.is_over(now));
        let old = self
            .attributes
            .as_ref()
            .is_none_or(|reading| now >= reading.at + refresh);
        self.plan.claims.need_attributes() && !waits && (old || self.look_attributes)
    }

    fn rest_until(&self, refresh: Duration) -> Option<Duration> {
        let fields = self.setbacks.values().map(|setback| setback.retry_at);
        let attributes = self.plan.claims.need_attributes().then(|| {
            let refreshed = self
                .attributes
                .as_ref()
                .map_or(Duration::ZERO, |reading| reading.at + refresh);
            self.attributes_setback
                .as_ref()
                .map_or(refreshed, |setback| setback.retry_at)
        });
        fields.chain(attributes).min()
    }

    /// What was written and can be seen in the device itself.
    pub fn unconfirmed_settings(&self) -> bool {
        self.unconfirmed
            .iter()
            .any(|field| !matches!(field, Field::Attribute(_)))
    }
}
