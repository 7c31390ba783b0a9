use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Failure, Request, Retry, contest::Contest, failure::Backoff};
use crate::{
    model::{Attributes, ListSetting, NodeId, RouteSet},
    plan::{
        AttributeType, AttributeWrites, Call, Change, DevicePlan, Difference, Field, PolicyKey,
        next_call,
    },
};

/// Values that a request for one device has read, and when.
#[derive(Debug, Clone)]
pub(super) struct Reading<T> {
    pub values: T,
    pub at: Duration,
}

/// A device that policies manage: what is known about it, and what is in flight.
#[derive(Debug, Default)]
pub(super) struct DeviceState {
    pub policies: BTreeSet<PolicyKey>,
    /// The policies that have released it and must clear it.
    pub clearing: BTreeSet<PolicyKey>,
    pub plan: DevicePlan,
    /// The number of its requests in flight.
    pub busy: u32,
    /// Parts of refused batches that write to it and wait for their turn.
    pub halves: u32,
    /// The engine's revision when the device was last written or read; an older list does not count.
    pub changed_at_revision: u64,
    /// The device must be read before anything else: its state is unknown.
    pub read: bool,
    pub attributes: Option<Reading<Attributes>>,
    /// The policies that may set attributes here, as noted in [`crate::plan::TailnetWide`].
    pub setting: BTreeSet<PolicyKey>,
    /// The types of its attributes, as noted there.
    pub types: BTreeSet<AttributeType>,
    /// The types of attributes that the API refuses here, as noted there.
    pub refused: BTreeSet<AttributeType>,
    /// Its attributes must be read again, whatever their age.
    pub read_attributes: bool,
    /// Its routes, if the list lacks them.
    pub routes: Option<Reading<RouteSet>>,
    /// When its routes were last read, for a request that sends unmanaged routes along.
    pub routes_read: Option<Duration>,
    /// When the device itself was last read, for a request that sends unmanaged tags along.
    pub device_read: Option<Duration>,
    /// Written changes that no read has verified yet. Empty: nothing to verify.
    pub unverified: BTreeMap<Field, Change>,
    /// Written changes that have been read since. The next plan tells whether they still differ.
    pub verified: BTreeMap<Field, Change>,
    /// Changes that may have taken effect: the answer was lost.
    pub outcome_unknown: Vec<Difference>,
    pub backoffs: BTreeMap<Field, Backoff>,
    /// The fields that were written within the last hour or so, and whether another writer reverses them.
    pub contests: BTreeMap<Field, Contest>,
    pub read_backoff: Option<Backoff>,
    pub attributes_backoff: Option<Backoff>,
    pub routes_backoff: Option<Backoff>,
}

/// The next step for a device.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, until something changes or this time comes.
    Rest(Option<Duration>),
    /// Something is in flight.
    Wait,
    /// Read something first.
    Read(Request),
    /// Write attributes, together with those of other devices.
    WriteAttributes(AttributeWrites, Vec<Difference>),
    /// Send this request, which removes these differences.
    Call(Call, Vec<Difference>),
    /// Verify what was written.
    Verify,
}

/// What the next step depends on besides the device itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepContext {
    /// The records that the policies need are durable.
    pub recorded: bool,
    /// The last list lacks the device.
    pub missing: bool,
    /// The age at which attributes are read again.
    pub refresh: Duration,
    /// The last list can be trusted to delete a device.
    pub list_trusted: bool,
    /// How old a read may be if a request depends on it.
    pub fresh_for: Duration,
    pub now: Duration,
}

impl DeviceState {
    /// The policies that may send a request for it.
    pub fn all_policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.union(&self.clearing)
    }

    pub fn next_step(&self, id: &NodeId, context: StepContext) -> Step {
        if self.busy > 0 || self.halves > 0 {
            return Step::Wait;
        }
        self.step_if_idle(id, context)
    }

    /// The next step if nothing is in flight.
    pub fn step_if_idle(&self, id: &NodeId, context: StepContext) -> Step {
        let StepContext {
            recorded,
            missing,
            refresh,
            list_trusted,
            fresh_for,
            now,
        } = context;
        // Another module finds out whether the device still exists.
        if missing {
            return Step::Rest(None);
        }
        // A read of the device comes first: every later decision rests on what it shows.
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
            // Without a durable record, a crash would lose what was changed (docs/decisions/0019).
            Some(_) if !recorded => Step::Wait,
            // Someone may have approved a route or set a tag since the list. A request that replaces a whole
            // list sends unmanaged entries along, so they must be fresh. A change that cannot be undone must
            // rest on fresh facts too.
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

    /// Whether the device was read a moment ago.
    pub fn was_just_read(&self, fresh_for: Duration, now: Duration) -> bool {
        is_fresh(self.device_read, fresh_for, now)
    }

    /// The fields that must wait, as a request for them (or the read before it) has failed recently.
    pub fn blocked(&self, list_trusted: bool, now: Duration) -> BTreeSet<Field> {
        let waiting = self
            .backoffs
            .iter()
            .filter(|(_, backoff)| !backoff.is_over(now))
            .map(|(field, _)| field.clone());
        let contests = self.contests.iter();
        // Entries of other policies in the same list do not wait.
        let own = |field: &Field, contest: &Contest| {
            let mut differences = self.plan.differences.iter();
            differences.all(|it| it.change.field() != *field || contest.is_of(it.owners()))
        };
        let contested = contests
            .filter(|(field, contest)| contest.is_paused(now) && own(field, contest))
            .map(|(field, _)| field.clone());
        let routes = pending(self.routes_backoff.as_ref(), now).map(|_| {
            ListSetting::ALL
                .into_iter()
                .filter(|it| it.is_of_routes())
                .map(Field::List)
        });
        let tags = pending(self.read_backoff.as_ref(), now)
            .filter(|_| self.plan.owners.share_tags())
            .map(|_| Field::List(ListSetting::Tags));
        let reads_fail = pending(self.read_backoff.as_ref(), now).is_some();
        // Deleting needs both a read that succeeds and a list that is not in doubt.
        let deletion = (reads_fail || !list_trusted).then_some(Field::DeleteInactive);
        // Expiring a key cannot be undone either, so it needs a read that succeeds.
        let expiry = reads_fail.then_some(Field::ExpireKeyAt);
        // After a lost answer, the attributes are unknown.
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

    /// Whether the routes must be read: the list lacks them, and they were never read or not recently.
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

    /// When something must be done next. Always after `now`, as everything that is due is done already.
    fn rest_until(&self, refresh: Duration, now: Duration) -> Option<Duration> {
        let claims = &self.plan.owners;
        let reads_of_device = [
            &self.read_backoff,
            &self.attributes_backoff,
            &self.routes_backoff,
        ];
        let backoffs = self
            .backoffs
            .values()
            .chain(reads_of_device.into_iter().flatten());
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
            // A time that has passed would wake the engine again and again without anything to do.
            .filter(|at| *at > now)
            .min()
    }

    /// Whether a written setting waits for verification that a read of the device itself shows.
    pub fn unverified_settings(&self) -> bool {
        self.unverified
            .keys()
            .any(|field| !matches!(field, Field::Attribute(_)))
    }

    /// The namespaces whose policies need regular reads of this device.
    pub fn reading_namespaces(&self) -> BTreeSet<String> {
        let claims = &self.plan.owners;
        let routes = claims.need_routes() && self.routes.is_some();
        let of_routes = self.all_policies().filter(|_| routes);
        let all = claims.attribute_readers().into_iter().chain(of_routes);
        all.map(|key| key.namespace.clone()).collect()
    }

    /// Whether nothing is left to send. Held changes do not count, nor those that wait for them.
    pub fn is_done(&self) -> bool {
        self.plan.complete() && next_call(&self.plan, &BTreeSet::new()).is_none()
    }

    /// The failures that concern a policy: of the reads that it needs (without a field), and of its own
    /// differences.
    pub fn failures(&self, key: &PolicyKey) -> impl Iterator<Item = (Option<Field>, Failure)> {
        let of_reads = self.reads_in_force().map(|backoff| (None, backoff));
        let own = self.plan.differences.iter().filter(|d| d.concerns(key));
        let of_fields = own.filter_map(|difference| {
            let field = difference.change.field();
            let contest = self.contests.get(&field);
            let contested = contest.is_some_and(Contest::is_contested);
            let backoff = self.backoffs.get(&field).filter(|_| !contested)?;
            // A quiet failure is repeated soon, and is reported only if it lasts.
            (!backoff.is_quiet()).then_some((Some(field), backoff))
        });
        let contests = self.contests.iter();
        let contested = contests
            .filter(move |(_, contest)| contest.concerns(std::iter::once(key)))
            .filter_map(|(field, contest)| {
                let failure = contest.failure_now(|change| self.plan.owners.view(key, change))?;
                Some((Some(field.clone()), failure))
            });
        of_reads
            .chain(of_fields)
            .map(|(field, backoff)| {
                let message = self.plan.owners.mask(key, &backoff.failure.message);
                let failure = backoff.failure.clone();
                (field, Failure { message, ..failure })
            })
            .chain(contested)
    }

    /// Whether a write failed with a transient error and is repeated soon: that still counts as work in
    /// progress.
    pub fn retries_quietly(&self) -> bool {
        let mut open = self.plan.differences.iter().filter(|d| d.hold.is_none());
        open.any(|difference| {
            let backoff = self.backoffs.get(&difference.change.field());
            backoff.is_some_and(Backoff::is_quiet)
        })
    }

    /// The needed reads that have failed.
    pub fn reads_in_force(&self) -> impl Iterator<Item = &Backoff> {
        let claims = &self.plan.owners;
        let attributes = self.attributes_backoff.as_ref();
        let routes = self.routes_backoff.as_ref();
        let device = self.read_backoff.as_ref();
        let needed = [
            device.filter(|_| self.needs_device_read()),
            attributes.filter(|_| claims.need_attributes()),
            routes.filter(|_| claims.need_routes()),
        ];
        needed.into_iter().flatten()
    }

    /// Whether the device itself must be read: because an answer was lost, to verify a write, or before a
    /// request that depends on such a read.
    fn needs_device_read(&self) -> bool {
        let shares_tags = self.plan.owners.share_tags();
        let mut open = self.plan.differences.iter().filter(|it| it.hold.is_none());
        self.read
            || self.unverified_settings()
            || open.any(|it| {
                it.is_action()
                    || (shares_tags && it.change.field() == Field::List(ListSetting::Tags))
            })
    }

    /// Whether the API has refused a change of this field for good.
    pub fn is_refused(&self, field: &Field) -> bool {
        let backoff = self.backoffs.get(field);
        backoff.is_some_and(|backoff| backoff.failure.retry == Retry::Never)
    }

    /// The types of attributes that the API has refused for good.
    pub fn refused_types(&self) -> BTreeSet<AttributeType> {
        let decided = self.plan.owners.attributes.iter();
        let refused = decided.filter(|(key, _)| self.is_refused(&Field::Attribute((*key).clone())));
        refused
            .map(|(key, claim)| AttributeType::of(key, &claim.desired))
            .collect()
    }

    /// Counts one request as answered.
    pub fn request_finished(&mut self, revision: u64) {
        self.busy = self.busy.saturating_sub(1);
        self.changed_at_revision = revision;
    }

    /// Drops the backoffs of failed reads that could be repeated but are no longer needed.
    pub fn drop_unneeded_reads(&mut self, now: Duration) {
        for backoff in [
            &mut self.read_backoff,
            &mut self.attributes_backoff,
            &mut self.routes_backoff,
        ] {
            backoff.take_if(|backoff| backoff.is_over(now));
        }
    }

    /// Forgets the failures and contests of a policy: an edit is its author's answer to every earlier
    /// failure. Failures of other policies stay.
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

    /// Forgets everything that was read, and every failure.
    pub fn forget_reads(&mut self) {
        self.attributes = None;
        self.routes = None;
        self.routes_read = None;
        self.device_read = None;
        self.forget_backoffs();
    }

    /// Forgets all backoffs and contests.
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
