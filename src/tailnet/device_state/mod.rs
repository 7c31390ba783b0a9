//! A device that policies manage: its plan, what was read of it, and what has become of its changes.

mod causes;
mod noted;
mod parts;
mod requests;
mod scope;
mod step;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

pub(super) use self::{
    noted::Noted,
    scope::Scope,
    step::{Cause, Step, StepContext},
};
use self::{parts::Parts, scope::InFlight};
use super::{
    Failure, Request, Retry,
    contest::Contest,
    failure::Backoff,
    mutants::mutant,
    read::Read,
    write_progress::{Compared, WriteProgress},
};
use crate::{
    model::{Attributes, Device, ListSetting, NodeId, RouteSet, Setting},
    plan::{
        AttributeType, Call, DevicePlan, Field, PolicyKey, UniqueSetting, apply_attributes,
        next_call,
    },
};

/// Routes that a request for one device has read, and when they arrived.
#[derive(Debug)]
struct KnownRoutes {
    values: RouteSet,
    at: Duration,
}

/// A device that policies manage: what is known about it, and what is in flight.
#[derive(Debug, Default)]
pub(super) struct DeviceState {
    policies: BTreeSet<PolicyKey>,
    /// The policies that have released it and must clear it.
    clearing: BTreeSet<PolicyKey>,
    plan: DevicePlan,
    /// Its requests in flight, by what they read or write.
    in_flight: InFlight,
    /// Parts of refused batches that write to it.
    parts: Parts,
    /// Reads of the device itself.
    device: Read,
    attributes: Read,
    routes: Read,
    known_attributes: Option<Attributes>,
    /// Its routes, if the list lacks them.
    known_routes: Option<KnownRoutes>,
    noted: Noted,
    progress: WriteProgress,
    /// The policies to which it is new: it was not in sync with them yet.
    joined: BTreeSet<PolicyKey>,
}

impl DeviceState {
    /// The policies that target it.
    pub const fn policies(&self) -> &BTreeSet<PolicyKey> {
        &self.policies
    }

    /// The policies that have released it and must clear it.
    pub const fn clearing(&self) -> &BTreeSet<PolicyKey> {
        &self.clearing
    }

    /// The policies that may send a request for it.
    pub fn all_policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.policies.union(&self.clearing)
    }

    /// A policy no longer targets it.
    pub fn release(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
        self.joined.remove(key);
    }

    /// A policy that has released it must clear it. Returns whether that is new.
    pub fn begin_clearing(&mut self, key: &PolicyKey) -> bool {
        self.clearing.insert(key.clone())
    }

    /// A policy has cleared it, or no longer has to.
    pub fn end_clearing(&mut self, key: &PolicyKey) {
        self.clearing.remove(key);
    }

    pub const fn plan(&self) -> &DevicePlan {
        &self.plan
    }

    /// No policy targets it any longer, so nothing more is sent to it.
    pub fn drop_plan(&mut self) {
        self.plan = DevicePlan::default();
    }

    /// A missing device gets no one-shot action.
    pub fn drop_actions(&mut self) {
        self.plan
            .differences
            .retain(|difference| !difference.is_action());
    }

    /// A part of a refused batch writes to it, and waits for its turn. `in_doubt`: the answer to the batch was lost.
    pub const fn part_waits(&mut self, in_doubt: bool) {
        self.parts.add(in_doubt);
    }

    /// Such a part is sent.
    pub const fn part_sent(&mut self) {
        self.parts.remove();
        self.request_sent(Scope::Attributes);
    }

    /// Such a part is not sent. If the answer to the batch was lost, only a read can tell its outcome now.
    pub const fn part_dropped(&mut self) {
        self.parts.remove();
        if self.parts.are_in_doubt() {
            self.attributes.require();
        }
    }

    /// Whether the answer to a split batch was lost, and no read has shown its outcome since.
    pub const fn is_batch_in_doubt(&self) -> bool {
        self.parts.are_in_doubt()
    }

    /// The device must be read before anything else: its state is unknown.
    pub const fn require_read(&mut self) {
        self.device.require();
    }

    /// Its attributes must be read again, whatever their age.
    pub const fn require_attributes(&mut self) {
        self.attributes.require();
    }

    /// Whether the device itself must be read before anything else.
    pub const fn must_be_read(&self) -> bool {
        self.device.is_required()
    }

    /// Whether a read must show what the device is like now: an answer was lost, or lists disagree.
    pub const fn is_in_question(&self) -> bool {
        self.device.is_required() || self.attributes.is_required()
    }

    /// Whether the device was read a moment ago.
    pub fn was_just_read(&self, fresh_for: Duration, now: Duration) -> bool {
        self.device.is_fresh(fresh_for, now)
    }

    /// When the device was last read for a request that depends on that, if that read still counts.
    pub const fn read_at(&self) -> Option<Duration> {
        self.device.at()
    }

    /// When its routes were last read for a request that depends on that, if that read still counts.
    pub const fn routes_read_at(&self) -> Option<Duration> {
        self.routes.at()
    }

    /// Its attributes, if they were read.
    pub const fn attributes(&self) -> Option<&Attributes> {
        self.known_attributes.as_ref()
    }

    /// A read of the device itself that was requested at this time has succeeded. Returns the device as it is
    /// known now.
    pub fn take_device(&mut self, device: Device, requested_at: Duration) -> Device {
        let device = self.with_known_routes(device);
        self.note_listed();
        self.in_flight.read();
        self.device.succeeded(requested_at);
        device
    }

    /// Takes routes that were requested at one time and have arrived at another.
    pub fn take_routes(&mut self, values: &RouteSet, requested_at: Duration, at: Duration) {
        self.routes.succeeded(requested_at);
        // Where lists report the routes, a reading of its own would only become outdated.
        if self.plan.routes_unread || self.known_routes.is_some() {
            let values = values.clone();
            self.known_routes = Some(KnownRoutes { values, at });
        }
    }

    /// Takes attributes that have arrived.
    pub fn take_attributes(&mut self, values: Attributes, at: Duration) {
        self.attributes.succeeded(at);
        self.known_attributes = Some(values);
        self.parts.settle();
        self.progress
            .verify(|field| matches!(field, Field::Attribute(_)));
    }

    /// A reported device. If the report lacks its routes, they are taken from the last read.
    pub fn with_known_routes(&mut self, mut device: Device) -> Device {
        match (&device.enabled_routes, &self.known_routes) {
            (None, Some(known)) => device.enabled_routes = Some(known.values.clone()),
            // The report has the routes itself, so a separate read is no longer needed.
            (Some(_), _) => self.known_routes = None,
            (None, None) if mutant!(UnknownIsEmpty) => {
                device.enabled_routes = Some(RouteSet::new());
            }
            (None, None) => {}
        }
        device
    }

    /// The device was read or listed. Returns whether that may change what to do.
    ///
    /// A list ends no backoff of the reads of a single device: otherwise a request for an early list would
    /// reset the backoffs of all policies.
    pub fn note_listed(&mut self) -> bool {
        let was_required = self.device.satisfy();
        self.in_flight.settle();
        // A list has no attributes, so it verifies none.
        self.progress
            .verify(|field| !matches!(field, Field::Attribute(_)))
            || was_required
    }

    /// The last failure of a read like this one, if none has succeeded since.
    pub fn read_backoff(&self, request: &Request) -> Option<&Backoff> {
        match request {
            Request::Device(_) => self.device.backoff(),
            Request::Routes(_) => self.routes.backoff(),
            Request::Attributes(_) => self.attributes.backoff(),
            Request::Devices | Request::Write(_) => None,
        }
    }

    /// A read has failed, and waits.
    pub fn read_failed(&mut self, request: &Request, backoff: Backoff) {
        match request {
            Request::Device(_) => self.device.failed(backoff),
            Request::Routes(_) => self.routes.failed(backoff),
            Request::Attributes(_) => self.attributes.failed(backoff),
            Request::Devices | Request::Write(_) => {}
        }
    }

    /// The API has made a change: what was read before is outdated, or known to be different.
    pub fn apply(&mut self, id: &NodeId, call: &Call) {
        self.outdate_reads();
        match call {
            Call::WriteAttributes(writes) => {
                if let (Some(known), Some(writes)) = (&mut self.known_attributes, writes.get(id)) {
                    apply_attributes(writes, known);
                }
            }
            Call::SetRoutes(_, routes) => {
                if let Some(known) = &mut self.known_routes {
                    known.values.clone_from(routes);
                }
            }
            // It is undocumented whether new tags change the key expiry: read the device.
            Call::SetTags(..) if self.plan.owners.settings.contains_key(&Setting::KeyExpiry) => {
                self.device.require();
            }
            _ => {}
        }
    }

    /// A request may have changed something, so no read from before counts for the next one.
    pub const fn outdate_reads(&mut self) {
        self.routes.outdate();
        self.device.outdate();
    }

    /// It is unknown what a request has changed: that must be read first.
    pub const fn require_read_after(&mut self, call: &Call) {
        match call {
            // A read of the device has no attributes.
            Call::WriteAttributes(_) => self.attributes.require(),
            _ => self.device.require(),
        }
    }

    /// What has become of its changes.
    pub const fn progress(&self) -> &WriteProgress {
        &self.progress
    }

    /// The same, to note an answer.
    pub const fn progress_mut(&mut self) -> &mut WriteProgress {
        &mut self.progress
    }

    /// Compares the written changes with the plan, which rests on the reads since.
    pub fn compare(&mut self, now: Duration) -> Compared {
        // While a read is due, the plan rests on facts from before the write.
        let in_question = self.is_in_question();
        let plan = &self.plan;
        self.progress.compare(
            &plan.differences,
            |field| plan.keeps_from_sending(field),
            &self.policies,
            in_question,
            now,
        )
    }

    /// What must be noted of it for the whole tailnet. `setting`: the policies that may set attributes here.
    pub fn to_note(&self, setting: BTreeSet<PolicyKey>) -> Noted {
        // Attributes that are no longer read may be gone.
        let read = self
            .attributes()
            .filter(|_| self.plan.owners.need_attributes());
        Noted {
            setting,
            types: read.map(AttributeType::all).unwrap_or_default(),
            refused: self.refused_types(),
        }
    }

    /// Notes it for the whole tailnet. Returns what was noted before.
    pub fn note(&mut self, noted: Noted) -> Noted {
        std::mem::replace(&mut self.noted, noted)
    }

    /// The settings desired for it that are unique in the tailnet. One that the API refuses for good does not
    /// compete.
    pub fn unique_setting(&self) -> UniqueSetting {
        let mut desired = self.plan.unique.clone();
        let refuses = |setting| self.is_refused(&Field::Setting(setting));
        desired.ipv4.take_if(|_| refuses(Setting::Ipv4));
        desired.name.take_if(|_| refuses(Setting::Name));
        desired
    }

    /// The namespaces whose policies need regular reads of this device.
    pub fn reading_namespaces(&self) -> BTreeSet<String> {
        let claims = &self.plan.owners;
        // Routes that lists report need no reads of their own.
        let routes = claims.need_routes() && self.known_routes.is_some();
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
        // A held change is not tried, so that its last failure says nothing about it.
        let own = self.plan.differences.iter();
        let own = own.filter(|it| it.concerns(key) && it.hold.is_none());
        let of_fields = own.filter_map(|difference| {
            let field = difference.change.field();
            let contest = self.progress.contest(&field);
            // A contested field is reported as such below, and not with its last failure.
            let contested = contest.is_some_and(Contest::is_contested);
            let backoff = self.progress.backoff(&field).filter(|_| !contested)?;
            // A quiet failure is repeated soon, and is reported only if it lasts.
            (!backoff.is_quiet()).then_some((Some(field), backoff))
        });
        let contests = self.progress.contests();
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
            let backoff = self.progress.backoff(&difference.change.field());
            backoff.is_some_and(Backoff::is_quiet)
        })
    }

    /// The needed reads that have failed.
    pub fn reads_in_force(&self) -> impl Iterator<Item = &Backoff> {
        let claims = &self.plan.owners;
        let attributes = self.attributes.backoff();
        let routes = self.routes.backoff();
        let device = self.device.backoff();
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
        self.device.is_required()
            || self.progress.has_unverified_settings()
            || open.any(|it| {
                self.is_contradicted()
                    || it.is_action()
                    || (shares_tags && it.change.field() == Field::List(ListSetting::Tags))
            })
    }

    /// Whether the API has refused a change of this field for good.
    fn is_refused(&self, field: &Field) -> bool {
        let backoff = self.progress.backoff(field);
        backoff.is_some_and(|backoff| backoff.failure.retry == Retry::Never)
    }

    /// The types of attributes that the API has refused for good.
    fn refused_types(&self) -> BTreeSet<AttributeType> {
        let decided = self.plan.owners.attributes.iter();
        let refused = decided.filter(|(key, _)| self.is_refused(&Field::Attribute((*key).clone())));
        refused
            .map(|(key, claim)| AttributeType::of(key, &claim.desired))
            .collect()
    }

    /// Drops the backoffs of failed reads that could be repeated but are no longer needed.
    pub fn drop_unneeded_reads(&mut self, now: Duration) {
        for read in self.reads_mut() {
            read.drop_backoff_if_over(now);
        }
    }

    /// Forgets the failures and contests of a policy: an edit is its author's answer to every earlier
    /// failure. Failures of other policies stay.
    pub fn forget_backoffs_of(&mut self, key: &PolicyKey) {
        let own = self.plan.differences.iter().filter(|d| d.concerns(key));
        let fields = own.map(|difference| difference.change.field());
        self.progress.forget_failures_of(key, fields);
        self.reads_mut().into_iter().for_each(Read::forget_backoff);
    }

    /// Forgets everything that was read, and every failure.
    pub fn forget_reads(&mut self) {
        self.known_attributes = None;
        self.known_routes = None;
        self.parts.settle();
        for read in self.reads_mut() {
            read.outdate();
            read.forget_backoff();
        }
        self.progress.forget_failures();
    }

    const fn reads_mut(&mut self) -> [&mut Read; 3] {
        [&mut self.device, &mut self.attributes, &mut self.routes]
    }
}
