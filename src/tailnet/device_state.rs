use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Failure, Request, Retry, contest::Contest, failure::Backoff};
use crate::{
    model::{Attributes, NodeId, RouteSet},
    plan::{
        AttributeType, AttributeWrites, Call, Change, DevicePlan, Difference, Field, PolicyKey,
        next_call,
    },
};

/// What was read of a device by a request of its own, and when.
#[derive(Debug, Clone)]
pub(super) struct Reading<T> {
    pub values: T,
    pub at: Duration,
}

/// A device that policies hold: what is known and under way about it.
#[derive(Debug, Default)]
pub(super) struct DeviceState {
    pub policies: BTreeSet<PolicyKey>,
    /// The policies that have let it go and are to clear it.
    pub clearing: BTreeSet<PolicyKey>,
    pub plan: DevicePlan,
    /// When it is to be compared anew though nothing happens.
    pub timer: Option<Duration>,
    /// Requests about it that are under way.
    pub busy: u32,
    /// Parts of refused batches that have something to write to it and wait for their turn.
    pub halves: u32,
    /// The engine's count of answers when it was written or looked at last; an older list does not
    /// count.
    pub changed_at_revision: u64,
    /// The device must be looked at before anything else: what it is like is not known.
    pub read: bool,
    pub attributes: Option<Reading<Attributes>>,
    /// The policies that may set attributes here, as others are told of them.
    pub setting: BTreeSet<PolicyKey>,
    /// The forms of its attributes, as others are told of them.
    pub types: BTreeSet<AttributeType>,
    /// The forms of attributes that the API refuses here, as others are told of them.
    pub refused: BTreeSet<AttributeType>,
    /// Its attributes must be read again, whatever their age.
    pub read_attributes: bool,
    /// Its routes, where the list does not tell them.
    pub routes: Option<Reading<RouteSet>>,
    /// When its routes were read last, for a call that carries some of them along.
    pub routes_read: Option<Duration>,
    /// When the device itself was read last, for a call that carries some of its tags along.
    pub device_read: Option<Duration>,
    /// What was written and not seen since. Empty: nothing to confirm.
    pub unverified: BTreeMap<Field, Change>,
    /// What was written and looked at since: does it still differ?
    pub verified: BTreeMap<Field, Change>,
    /// What may have been written: the answer was lost.
    pub outcome_unknown: Vec<Difference>,
    pub backoffs: BTreeMap<Field, Backoff>,
    /// What was written within the last hour or so, and whether somebody reverses it.
    pub contests: BTreeMap<Field, Contest>,
    pub read_backoff: Option<Backoff>,
    pub attributes_backoff: Option<Backoff>,
    pub routes_backoff: Option<Backoff>,
}

/// What to do next about a device.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, until something changes or this time comes.
    Rest(Option<Duration>),
    /// Something is under way.
    Wait,
    /// Look at something first.
    Read(Request),
    /// Write attributes, together with those of other devices.
    WriteAttributes(AttributeWrites, Vec<Difference>),
    /// Make this call, which removes these differences.
    Call(Call, Vec<Difference>),
    /// See whether what was written is there.
    Verify,
}

/// What decides about the next step besides the device itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepContext {
    /// What the policies must not forget is kept.
    pub recorded: bool,
    /// The last list lacks the device.
    pub missing: bool,
    /// The age at which attributes are read again.
    pub refresh: Duration,
    /// A device may be deleted for what the last list says.
    pub list_trusted: bool,
    /// How old a read may be that a call rests on.
    pub fresh_for: Duration,
    pub now: Duration,
}

impl DeviceState {
    /// The policies that may send something for it.
    pub fn all_policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.union(&self.clearing)
    }

    pub fn next_step(&self, id: &NodeId, given: StepContext) -> Step {
        if self.busy > 0 || self.halves > 0 {
            return Step::Wait;
        }
        self.step_if_idle(id, given)
    }

    /// The next step, were nothing under way.
    pub fn step_if_idle(&self, id: &NodeId, given: StepContext) -> Step {
        let StepContext {
            recorded,
            missing,
            refresh,
            list_trusted,
            fresh_for,
            now,
        } = given;
        // Whether it is there still is found out elsewhere.
        if missing {
            return Step::Rest(None);
        }
        if self.read {
            return match pending(self.read_backoff.as_ref(), now) {
                Some(retry_at) => Step::Rest(Some(retry_at)),
                None => Step::Read(Request::Device(id.clone())),
            };
        }
        if self.attributes_due(refresh, now) {
            return Step::Read(Request::Attributes(id.clone()));
        }
        if self.routes_due(refresh, now) {
            return Step::Read(Request::Routes(id.clone()));
        }
        match next_call(&self.plan, &self.blocked(list_trusted, now)) {
            Some(_) if !recorded => Step::Wait,
            // Somebody may have approved a route or given a tag since the list: a call that
            // replaces a whole list carries what nobody here decides, as it is now; and what cannot be
            // taken back is done for what is so now.
            Some((call, _)) if !self.rests_on(&call).is_fresh(fresh_for, now) => {
                Step::Read(match call {
                    Call::SetRoutes(..) => Request::Routes(id.clone()),
                    _ => Request::Device(id.clone()),
                })
            }
            Some((Call::WriteAttributes(mut writes), differences)) => Step::WriteAttributes(
                writes.remove(id).unwrap_or_default(),
                differences.into_iter().cloned().collect(),
            ),
            Some((call, differences)) => {
                Step::Call(call, differences.into_iter().cloned().collect())
            }
            None if self.can_verify(now) => Step::Verify,
            None => Step::Rest(self.rest_until(refresh, now)),
        }
    }

    /// Whether the device was looked at a moment ago.
    pub fn was_just_read(&self, fresh_for: Duration, now: Duration) -> bool {
        is_fresh(self.device_read, fresh_for, now)
    }

    /// The fields that must wait, as a call for them (or the read before it) failed a moment ago.
    pub fn blocked(&self, list_trusted: bool, now: Duration) -> BTreeSet<Field> {
        let waiting = self
            .backoffs
            .iter()
            .filter(|(_, backoff)| !backoff.is_over(now))
            .map(|(field, _)| field.clone());
        let contests = self.contests.iter();
        // What others desire of the same list besides does not wait.
        let own = |field: &Field, contest: &Contest| {
            let mut differences = self.plan.differences.iter();
            differences.all(|it| it.change.field() != *field || contest.is_of(it.owners()))
        };
        let contested = contests
            .filter(|(field, contest)| contest.is_paused(now) && own(field, contest))
            .map(|(field, _)| field.clone());
        let routes = pending(self.routes_backoff.as_ref(), now)
            .map(|_| [Field::EnabledRoutes, Field::ExitNode]);
        let tags = pending(self.read_backoff.as_ref(), now)
            .filter(|_| self.plan.owners.share_tags())
            .map(|_| Field::Tags);
        let looks_fail = pending(self.read_backoff.as_ref(), now).is_some();
        let deletion = (looks_fail || !list_trusted).then_some(Field::DeleteInactive);
        let expiry = looks_fail.then_some(Field::ExpireKeyAt);
        // After a lost answer nobody knows what the attributes are.
        let unknown = self
            .plan
            .differences
            .iter()
            .filter(|_| self.read_attributes);
        let attributes = unknown
            .map(|difference| difference.change.field())
            .filter(|field| matches!(field, Field::Attribute(_)));
        waiting
            .chain(contested)
            .chain(routes.into_iter().flatten())
            .chain(tags)
            .chain(deletion)
            .chain(expiry)
            .chain(attributes)
            .collect()
    }

    fn attributes_due(&self, refresh: Duration, now: Duration) -> bool {
        let old = self
            .attributes
            .as_ref()
            .is_none_or(|reading| now >= reading.at + refresh);
        self.plan.owners.need_attributes()
            && pending(self.attributes_backoff.as_ref(), now).is_none()
            && (old || self.read_attributes)
    }

    /// Whether the routes must be read: the list does not tell them, and they were never read or
    /// a while ago.
    fn routes_due(&self, refresh: Duration, now: Duration) -> bool {
        let old = self
            .routes
            .as_ref()
            .is_some_and(|reading| now >= reading.at + refresh);
        self.plan.owners.need_routes()
            && pending(self.routes_backoff.as_ref(), now).is_none()
            && (self.plan.routes_unread || old)
    }

    fn can_verify(&self, now: Duration) -> bool {
        let backoff = if self.unverified_settings() {
            &self.read_backoff
        } else {
            &self.attributes_backoff
        };
        !self.unverified.is_empty() && pending(backoff.as_ref(), now).is_none()
    }

    /// When something will have to be done: always after `now`, as what could be done now is.
    fn rest_until(&self, refresh: Duration, now: Duration) -> Option<Duration> {
        let claims = &self.plan.owners;
        let looks = [
            &self.read_backoff,
            &self.attributes_backoff,
            &self.routes_backoff,
        ];
        let backoffs = self.backoffs.values().chain(looks.into_iter().flatten());
        let attributes = self
            .attributes
            .as_ref()
            .filter(|_| claims.need_attributes());
        let routes = self.routes.as_ref().filter(|_| claims.need_routes());
        let reads = [attributes.map(|read| read.at), routes.map(|read| read.at)];
        backoffs
            .map(|backoff| backoff.retry_at)
            .chain(reads.into_iter().flatten().map(|at| at + refresh))
            .chain(self.contests.values().filter_map(Contest::wakes_at))
            .filter(|at| *at > now)
            .min()
    }

    /// What was written and can be seen in the device itself.
    pub fn unverified_settings(&self) -> bool {
        self.unverified
            .keys()
            .any(|field| !matches!(field, Field::Attribute(_)))
    }

    /// The namespaces for which it costs a read of its own now and then.
    pub fn reading_namespaces(&self) -> BTreeSet<String> {
        let claims = &self.plan.owners;
        let routes = claims.need_routes() && self.routes.is_some();
        let of_routes = self.all_policies().filter(|_| routes);
        let all = claims.attribute_readers().into_iter().chain(of_routes);
        all.map(|key| key.namespace.clone()).collect()
    }

    /// Whether nothing that could be done is left to do: what is held is not, nor what waits for it.
    pub fn is_done(&self) -> bool {
        self.plan.complete() && next_call(&self.plan, &BTreeSet::new()).is_none()
    }

    /// The failures that concern a policy: of looks that it needs (without a field), and of its own
    /// differences.
    pub fn failures(&self, key: &PolicyKey) -> impl Iterator<Item = (Option<Field>, Failure)> {
        let of_looks = self.reads_in_force().map(|backoff| (None, backoff));
        let own = self.plan.differences.iter().filter(|d| d.concerns(key));
        let of_fields = own.filter_map(|difference| {
            let field = difference.change.field();
            let contest = self.contests.get(&field);
            let contested = contest.is_some_and(Contest::is_contested);
            let backoff = self.backoffs.get(&field).filter(|_| !contested)?;
            (!backoff.is_quiet()).then_some((Some(field), backoff))
        });
        let contests = self.contests.iter();
        let contested = contests
            .filter(move |(_, contest)| contest.concerns(std::iter::once(key)))
            .filter_map(|(field, contest)| {
                let failure = contest.failure_now(|change| self.plan.owners.view(key, change))?;
                Some((Some(field.clone()), failure))
            });
        of_looks
            .chain(of_fields)
            .map(|(field, backoff)| {
                let message = self.plan.owners.mask(key, &backoff.failure.message);
                let failure = backoff.failure.clone();
                (field, Failure { message, ..failure })
            })
            .chain(contested)
    }

    /// Whether a write failed in passing and is repeated soon: that is still work under way.
    pub fn retries_quietly(&self) -> bool {
        let mut open = self.plan.differences.iter().filter(|d| d.hold.is_none());
        open.any(|difference| {
            let backoff = self.backoffs.get(&difference.change.field());
            backoff.is_some_and(Backoff::is_quiet)
        })
    }

    /// The looks that it needs and that have failed.
    pub fn reads_in_force(&self) -> impl Iterator<Item = &Backoff> {
        let claims = &self.plan.owners;
        let attributes = self.attributes_backoff.as_ref();
        let routes = self.routes_backoff.as_ref();
        let device = self.read_backoff.as_ref();
        let looks = [
            device.filter(|_| self.needs_device_read()),
            attributes.filter(|_| claims.need_attributes()),
            routes.filter(|_| claims.need_routes()),
        ];
        looks.into_iter().flatten()
    }

    /// Whether the device must be read by itself: as an answer was lost, to verify a write, or before a call
    /// that rests on such a read.
    fn needs_device_read(&self) -> bool {
        let shares_tags = self.plan.owners.share_tags();
        let mut open = self.plan.differences.iter().filter(|it| it.hold.is_none());
        self.read
            || self.unverified_settings()
            || open.any(|it| it.is_action() || (shares_tags && it.change.field() == Field::Tags))
    }

    /// Whether the API has refused a change of this field for good.
    pub fn is_refused(&self, field: &Field) -> bool {
        let backoff = self.backoffs.get(field);
        backoff.is_some_and(|backoff| backoff.failure.retry == Retry::Never)
    }

    /// The forms of attributes that the API has refused for good.
    pub fn refused_types(&self) -> BTreeSet<AttributeType> {
        let decided = self.plan.owners.attributes.iter();
        let refused = decided.filter(|(key, _)| self.is_refused(&Field::Attribute((*key).clone())));
        refused
            .map(|(key, claim)| AttributeType::of(key, &claim.desired))
            .collect()
    }

    /// Counts one request as answered.
    pub fn request_finished(&mut self, touched: u64) {
        self.busy = self.busy.saturating_sub(1);
        self.changed_at_revision = touched;
    }

    /// A look that failed and could be tried again, but is not needed any more, says nothing.
    pub fn drop_unneeded_reads(&mut self, now: Duration) {
        for backoff in [
            &mut self.read_backoff,
            &mut self.attributes_backoff,
            &mut self.routes_backoff,
        ] {
            backoff.take_if(|backoff| backoff.is_over(now));
        }
    }

    /// Forgets what failed for a policy, and who contests that: an edit is its author's answer to whatever
    /// failed before it. What failed for others stays.
    pub fn forget_backoffs_of(&mut self, key: &PolicyKey) {
        let own = self.plan.differences.iter().filter(|d| d.concerns(key));
        for field in own.map(|difference| difference.change.field()) {
            self.backoffs.remove(&field);
        }
        let concerns = |contest: &Contest| contest.concerns(std::iter::once(key));
        self.contests.retain(|_, contest| !concerns(contest));
        self.read_backoff = None;
        self.attributes_backoff = None;
        self.routes_backoff = None;
    }

    /// Forgets all setbacks, and who contests what.
    pub fn forget_backoffs(&mut self) {
        self.backoffs.clear();
        self.contests.clear();
        self.read_backoff = None;
        self.attributes_backoff = None;
        self.routes_backoff = None;
    }
}

fn is_fresh(read: Option<Duration>, fresh_for: Duration, now: Duration) -> bool {
    read.is_some_and(|at| now < at + fresh_for)
}

fn pending(backoff: Option<&Backoff>, now: Duration) -> Option<Duration> {
    backoff
        .filter(|backoff| !backoff.is_over(now))
        .map(|backoff| backoff.retry_at)
}
