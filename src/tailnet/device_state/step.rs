//! Decides the next step of a device: a function of its plan, its reads and its progress.

use std::{collections::BTreeSet, time::Duration};

use super::DeviceState;
use crate::{
    model::{ListSetting, NodeId},
    plan::{AttributeWrites, Call, Difference, Field, next_call},
    tailnet::{Request, read::Read},
};

/// The next step for a device.
#[derive(Debug)]
pub(in crate::tailnet) enum Step {
    /// Nothing, until something changes or this time comes.
    Rest(Option<Duration>),
    /// Nothing, until something else has happened.
    Blocked(Cause),
    /// Read something first.
    Read(Request),
    /// Write attributes, together with those of other devices.
    WriteAttributes(AttributeWrites, Vec<Difference>),
    /// Send this request, which removes these differences.
    Call(Call, Vec<Difference>),
    /// Verify what was written.
    Verify,
}

/// Why nothing can be done for a device, although something is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tailnet) enum Cause {
    /// A request for it is in flight.
    Answer,
    /// Parts of a refused batch that write to it wait for their turn.
    Parts,
    /// A crash would lose what is changed: a record must be durable first.
    Record,
}

/// What the next step depends on besides the device itself.
#[derive(Debug, Clone, Copy)]
pub(in crate::tailnet) struct StepContext {
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
    pub fn next_step(&self, id: &NodeId, context: StepContext) -> Step {
        if self.is_busy() {
            return Step::Blocked(Cause::Answer);
        }
        if self.parts.wait() {
            return Step::Blocked(Cause::Parts);
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
        if self.device.is_required() {
            return self.read_device(id, now);
        }
        if self.attributes_due(refresh, now) {
            return Step::Read(Request::Attributes(id.clone()));
        }
        if self.routes_due(refresh, now) {
            return Step::Read(Request::Routes(id.clone()));
        }
        match next_call(&self.plan, &self.blocked(list_trusted, now)) {
            // Without a durable record, a crash would lose what was changed (docs/decisions/0019).
            Some(_) if !recorded => Step::Blocked(Cause::Record),
            // A guardrail may protect it by now.
            Some(_) if self.is_contradicted() => self.read_device(id, now),
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

    fn read_device(&self, id: &NodeId, now: Duration) -> Step {
        match self.device.retry_at(now) {
            Some(retry_at) => Step::Rest(Some(retry_at)),
            None => Step::Read(Request::Device(id.clone())),
        }
    }

    /// The fields that must wait, as a request for them (or the read before it) has failed recently.
    pub fn blocked(&self, list_trusted: bool, now: Duration) -> BTreeSet<Field> {
        let backoffs = self.progress.backoffs();
        let waiting = backoffs
            .filter(|(_, backoff)| !backoff.is_over(now))
            .map(|(field, _)| field.clone());
        let contests = self.progress.contests();
        let contested = contests
            .filter(|(field, contest)| {
                let mut differences = self.plan.differences.iter();
                // Entries of other policies in the same list do not wait.
                contest.is_paused(now)
                    && differences
                        .all(|it| it.change.field() != **field || contest.is_of(it.owners()))
            })
            .map(|(field, _)| field.clone());
        let routes = self.routes.retry_at(now).map(|_| {
            ListSetting::ALL
                .into_iter()
                .filter(|it| it.is_of_routes())
                .map(Field::List)
        });
        let reads_fail = self.device.retry_at(now).is_some();
        let tags = reads_fail && self.plan.owners.share_tags();
        let tags = tags.then_some(Field::List(ListSetting::Tags));
        // Deleting needs both a read that succeeds and a list that is not in doubt.
        let deletion = (reads_fail || !list_trusted).then_some(Field::DeleteInactive);
        // Expiring a key cannot be undone either, so it needs a read that succeeds.
        let expiry = reads_fail.then_some(Field::ExpireKeyAt);
        // After a lost answer, the attributes are unknown.
        let unknown = self
            .plan
            .differences
            .iter()
            .filter(|_| self.attributes.is_required());
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
        let is_old = self.attributes.at().is_none_or(|at| now >= at + refresh);
        self.plan.owners.need_attributes()
            && self.attributes.retry_at(now).is_none()
            && (is_old || self.attributes.is_required())
    }

    /// Whether the routes must be read: the list lacks them, and they were never read or not recently.
    fn routes_due(&self, refresh: Duration, now: Duration) -> bool {
        let known = self.known_routes.as_ref();
        let is_old = known.is_some_and(|known| now >= known.at + refresh);
        self.plan.owners.need_routes()
            && self.routes.retry_at(now).is_none()
            && (self.plan.routes_unread || is_old)
    }

    fn can_verify(&self, now: Duration) -> bool {
        let read = if self.progress.has_unverified_settings() {
            &self.device
        } else {
            &self.attributes
        };
        self.progress.has_unverified() && read.retry_at(now).is_none()
    }

    /// When something must be done next. Always after `now`, as everything that is due is done already.
    fn rest_until(&self, refresh: Duration, now: Duration) -> Option<Duration> {
        let claims = &self.plan.owners;
        let of_fields = self.progress.backoffs().map(|(_, backoff)| backoff);
        let of_reads = [&self.device, &self.attributes, &self.routes];
        let backoffs = of_fields.chain(of_reads.into_iter().filter_map(Read::backoff));
        let attributes = self.attributes.at().filter(|_| claims.need_attributes());
        let routes = self
            .known_routes
            .as_ref()
            .map(|known| known.at)
            .filter(|_| claims.need_routes());
        let contests = self.progress.contests();
        backoffs
            .map(|backoff| backoff.retry_at)
            .chain(
                [attributes, routes]
                    .into_iter()
                    .flatten()
                    .map(|at| at + refresh),
            )
            .chain(contests.filter_map(|(_, contest)| contest.wakes_at()))
            // A time that has passed would wake the engine again and again without anything to do.
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Device, SettingValue},
        plan::{Change, ChangeCause, DevicePlan, PolicyKey, Why},
        tailnet::{device_state::Scope, failure::Backoff},
    };

    const CONTEXT: StepContext = StepContext {
        recorded: true,
        missing: false,
        refresh: Duration::from_mins(10),
        list_trusted: true,
        fresh_for: Duration::from_secs(10),
        now: Duration::from_secs(100),
    };

    fn id() -> NodeId {
        "n1CNTRL".parse().unwrap()
    }

    fn difference() -> Difference {
        Difference {
            node: id(),
            device: "fra".to_owned(),
            change: Change::Setting {
                before: Some(SettingValue::Authorized(false)),
                after: SettingValue::Authorized(true),
            },
            why: Why::Declared,
            cause: Some(ChangeCause::Declared),
            owner: PolicyKey::new("network", "routers"),
            others: Vec::new(),
            hold: None,
        }
    }

    /// A device whose plan has one change.
    fn device() -> DeviceState {
        let mut device = DeviceState::default();
        device.set_plan(
            DevicePlan {
                differences: vec![difference()],
                ..DevicePlan::default()
            },
            |_| ChangeCause::Declared,
        );
        device
    }

    fn backoff(retry_at: Duration) -> Backoff {
        Backoff::example(retry_at)
    }

    fn cause(step: &Step) -> Option<Cause> {
        match step {
            Step::Blocked(cause) => Some(*cause),
            _ => None,
        }
    }

    #[test]
    fn a_change_is_sent_alone_unless_something_must_come_first() {
        let step = device().next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Call(_, removed) if removed == [difference()]));
    }

    #[test]
    fn a_device_waits_for_the_answer_of_its_request_and_for_the_parts_of_a_batch() {
        let mut device = device();
        device.part_waits(false);
        device.request_sent(Scope::Device);
        assert_eq!(
            cause(&device.next_step(&id(), CONTEXT)),
            Some(Cause::Answer)
        );
        device.request_not_sent(Scope::Device);
        assert_eq!(cause(&device.next_step(&id(), CONTEXT)), Some(Cause::Parts));
        device.part_dropped();
        assert_eq!(cause(&device.next_step(&id(), CONTEXT)), None);
    }

    #[test]
    fn a_part_that_is_not_sent_leaves_a_lost_answer_to_a_read() {
        for (in_doubt, must_read) in [(true, true), (false, false)] {
            let mut device = device();
            device.part_waits(in_doubt);
            device.part_waits(in_doubt);
            device.part_sent();
            assert!(!device.is_in_question());
            device.part_dropped();
            assert_eq!(device.is_in_question(), must_read);
        }
    }

    #[test]
    fn nothing_is_sent_before_its_record_is_durable() {
        let unrecorded = StepContext {
            recorded: false,
            ..CONTEXT
        };
        let step = device().next_step(&id(), unrecorded);
        assert_eq!(cause(&step), Some(Cause::Record));
        let step = DeviceState::default().next_step(&id(), unrecorded);
        assert!(matches!(step, Step::Rest(None)));
    }

    #[test]
    fn a_list_that_crosses_a_write_and_shows_another_device_costs_a_read_before_the_next_write() {
        let known = Device::plain(id());
        let renamed = Device {
            hostname: "guarded".to_owned(),
            ..known.clone()
        };
        let seen_again = Device {
            last_seen: Some(jiff::Timestamp::UNIX_EPOCH),
            ..known.clone()
        };
        let after = |listed: &Device, is_read_since: bool| {
            let mut device = device();
            device.request_sent(Scope::Device);
            if is_read_since {
                device.request_finished(Scope::Device, 7);
                device.take_device(known.clone(), CONTEXT.now);
                device.request_sent(Scope::Device);
            }
            device.note_older(&known, listed, 6);
            device.request_finished(Scope::Device, 8);
            device
        };
        let reads = |device: &DeviceState| {
            let step = device.next_step(&id(), CONTEXT);
            matches!(step, Step::Read(Request::Device(_)))
        };
        assert!(!reads(&after(&known, false)) && !reads(&after(&seen_again, false)));
        // The read is newer than the list.
        assert!(!reads(&after(&renamed, true)));
        let mut contradicted = after(&renamed, false);
        assert!(reads(&contradicted) && contradicted.is_contradicted());
        // A status must say why the change waits.
        contradicted
            .device
            .failed(backoff(CONTEXT.now + Duration::from_secs(9)));
        assert_eq!(contradicted.reads_in_force().count(), 1);
        contradicted.device.forget_backoff();
        contradicted.note_listed();
        assert!(!reads(&contradicted));
    }

    #[test]
    fn nothing_is_sent_to_a_missing_device() {
        let missing = StepContext {
            missing: true,
            ..CONTEXT
        };
        let step = device().next_step(&id(), missing);
        assert!(matches!(step, Step::Rest(None)));
    }

    #[test]
    fn a_required_read_comes_first_and_waits_after_a_failure() {
        let mut device = device();
        device.require_read();
        let request = Request::Device(id());
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Read(read) if read == request));
        let retry_at = CONTEXT.now + Duration::from_secs(9);
        device.read_failed(&request, backoff(retry_at));
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Rest(Some(at)) if at == retry_at));
        device.take_device(Device::plain(id()), CONTEXT.now);
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Call(..)));
    }

    #[test]
    fn a_refused_field_waits_and_an_accepted_one_is_verified() {
        let mut device = device();
        let retry_at = CONTEXT.now + Duration::from_secs(9);
        let field = difference().change.field();
        device.progress_mut().refused(field, backoff(retry_at));
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Rest(Some(at)) if at == retry_at));
        device.progress_mut().accepted(&difference());
        device.drop_plan();
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Verify));
        assert!(device.note_listed());
        let step = device.next_step(&id(), CONTEXT);
        assert!(matches!(step, Step::Rest(None)));
    }
}
