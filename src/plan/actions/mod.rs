//! One-shot acts: expiring the key of a device at a time, and deleting devices that have been away for long.
//!
//! They are no states to converge to, so each is begun by a record that is kept before the call
//! ([`ActionRecords`]), and decided by that record alone from then on:
//!
//! | `expireKeyAt`                                     | stage     |                                 |
//! |---------------------------------------------------|-----------|---------------------------------|
//! | before the policy's creation                      | Missed    | never sent                      |
//! | declared before, and the record dropped since     | Missed    | never sent                      |
//! | lies ahead                                        | Scheduled |                                 |
//! | no record, more than an hour past                 | Missed    | never sent                      |
//! | no record, the device joined after it             | Missed    | never sent                      |
//! | no record, the key was made after it              | Missed    | never sent                      |
//! | no record, within the hour                        | Due       | a record is made, then the call |
//! | no record, within the hour, the key is past       | Done      | a record is made, no call       |
//! | recorded, and `expires` is what it was then       | Started   | the call                        |
//! | recorded, and `expires` is something else         | Done      | never sent again                |
//!
//! A device is deleted only where all is known and says so ([`reaping`]); how many a policy deletes in
//! a day is counted by the records. Both are differences like any other once they are due, so that
//! order, guards, approvals, the limit and reports are the same.

mod records;
mod skew;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{
    Change, Difference, Field, FieldOwners, Hold, Mode, PlanContext, Policy, PolicyKey,
    PolicyRecord, Target,
};
use crate::{api::PolicyField, model::Device};

pub use records::{ActionRecords, DeletionRecord, ExpiryRecord, MAX_EXPIRIES};
pub use skew::ClockSkew;

/// How long after its time an expiry may still begin.
pub(super) const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// No device was seen before Tailscale existed.
const FIRST_SEEN: Timestamp = Timestamp::constant(1_546_300_800, 0);
/// The wall clock can be set while an alarm waits: the time is compared again this often.
const CLOCK_CHECK: SignedDuration = SignedDuration::from_mins(10);

/// Which devices are deleted for having been away, and how many in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteInactive {
    /// Not seen for so long.
    pub inactive_for: SignedDuration,
    /// At most so many within any 24 hours.
    pub max_per_day: u32,
}

/// How far a policy is with an act on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It can begin now.
    Due,
    /// It has begun: the record is made.
    Started,
    /// It never will be done.
    Missed(Missed),
    /// Its time lies ahead.
    Scheduled,
    /// As many devices as the policy may delete in a day have their turn before this one.
    Waiting,
    /// It has been done.
    Done,
}

/// Why an act will never be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    /// The policy is younger than the time: somebody has restored it, or written an old time.
    BeforeCreation,
    /// The device was seen too late.
    TooLate,
    /// The device has joined since.
    JoinedLater,
    /// The same time or a later one was declared before and taken out: its records are gone, so
    /// nobody knows what was done for it.
    DeclaredBefore,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeCreation => "the time lies before the creation of the policy",
            Self::TooLate => "the time was more than an hour past before it could begin",
            Self::JoinedLater => "the device joined the tailnet after the time",
            Self::DeclaredBefore => {
                "the policy declared this time or a later one before, and dropped it more than an hour \
                 after it"
            }
        })
    }
}

/// An act of a policy on the device in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Whose it is.
    pub policy: PolicyKey,
    /// [`Field::ExpireKeyAt`] or [`Field::DeleteInactive`].
    pub field: Field,
    /// How far it is.
    pub stage: Stage,
}

/// How far a policy is with expiring the key of a device; `None` where it wishes for none.
#[must_use]
pub fn expiry(
    policy: &Policy,
    record: &PolicyRecord,
    device: &Device,
    now: Timestamp,
) -> Option<Stage> {
    let at = policy.desired.expire_key_at?;
    if device.external {
        return None;
    }
    let expiry = record.actions.expiries.get(&at);
    if expiry.is_some_and(|expiry| expiry.done.contains(&device.node_id)) {
        return Some(Stage::Done);
    }
    if at < policy.created {
        return Some(Stage::Missed(Missed::BeforeCreation));
    }
    let started = expiry.and_then(|expiry| expiry.started.get(&device.node_id));
    if started.is_none() && record.actions.is_dropped(at) {
        return Some(Stage::Missed(Missed::DeclaredBefore));
    }
    if now < at {
        return Some(Stage::Scheduled);
    }
    if let Some(before) = started {
        // Whoever changed it since, the key of then is gone.
        let same = *before == device.expires;
        return Some(if same { Stage::Started } else { Stage::Done });
    }
    if device.created.is_some_and(|created| created > at) {
        return Some(Stage::Missed(Missed::JoinedLater));
    }
    if now.duration_since(at) > GRACE {
        return Some(Stage::Missed(Missed::TooLate));
    }
    Some(if is_past(device, now) {
        Stage::Done
    } else {
        Stage::Due
    })
}

/// Whether the key has run out.
fn is_past(device: &Device, now: Timestamp) -> bool {
    !device.key_expiry_disabled && device.expires.is_some_and(|expires| expires <= now)
}

/// What a policy that deletes devices makes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inactivity {
    /// It is kept until this time at least.
    KeptUntil(Timestamp),
    /// It is to be deleted, as it was last seen at this time.
    Inactive(Timestamp),
}

/// Whether a device has been away for so long that a policy deletes it; `None` where that is no
/// question, or not known. Never one that is connected or may be, that was shared in, of which it is
/// not known when it was last seen, or that is protected; nor one whose last contact is implausible, as it
/// lies before the device joined, before Tailscale existed, or in the future.
#[must_use]
pub fn inactivity(
    policy: &Policy,
    device: &Device,
    protected: bool,
    now: Timestamp,
) -> Option<Inactivity> {
    let delete_inactive = policy.desired.delete_inactive?;
    let of_many = matches!(policy.target, Target::Selector(_));
    if !of_many || protected || device.external || device.connected != Some(false) {
        return None;
    }
    let joined = device.created.unwrap_or(FIRST_SEEN).max(FIRST_SEEN);
    let plausible = |seen: &Timestamp| (joined..=now).contains(seen);
    let last_seen = device.last_seen.filter(plausible)?;
    let due = last_seen.checked_add(delete_inactive.inactive_for).ok()?;
    Some(if due <= now {
        Inactivity::Inactive(last_seen)
    } else {
        Inactivity::KeptUntil(due)
    })
}

/// The acts of a device's policies.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// How far each is.
    pub stages: Vec<Action>,
    /// What can be done now, by the rank of the policies.
    pub changes: Vec<(Change, Vec<PolicyKey>)>,
    /// When something about them changes though nothing happens.
    pub wakes: Option<Timestamp>,
}

impl Actions {
    /// What the policies of a device have to do about it once.
    pub fn of(
        device: &Device,
        policies: &[(&Policy, &PolicyRecord)],
        context: &PlanContext<'_>,
    ) -> Self {
        let mut actions = Self::default();
        let acting = |(policy, _): &&(&Policy, &PolicyRecord)| policy.desired.has_actions();
        let mut ranked: Vec<_> = policies.iter().filter(acting).collect();
        ranked.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        for (policy, record) in ranked {
            actions.expire(policy, record, device, context.now);
            actions.delete_inactive(policy, record, device, context);
        }
        actions
    }

    fn expire(&mut self, policy: &Policy, record: &PolicyRecord, device: &Device, now: Timestamp) {
        let (Some(at), Some(stage)) = (
            policy.desired.expire_key_at,
            expiry(policy, record, device, now),
        ) else {
            return;
        };
        self.note(policy, Field::ExpireKeyAt, stage);
        match stage {
            Stage::Due | Stage::Started => {
                let before = device.expires;
                self.desired(policy, Change::ExpireKey { at, before });
                // A moment after the hour, what has not begun is missed.
                let over = at + GRACE + SignedDuration::from_secs(1);
                self.wake(over, now);
            }
            Stage::Scheduled => self.wake(at.min(now + CLOCK_CHECK), now),
            Stage::Missed(_) | Stage::Waiting | Stage::Done => {}
        }
    }

    fn delete_inactive(
        &mut self,
        policy: &Policy,
        record: &PolicyRecord,
        device: &Device,
        context: &PlanContext<'_>,
    ) {
        let last_seen = match inactivity(policy, device, false, context.now) {
            None => return,
            Some(Inactivity::KeptUntil(until)) => return self.wake(until, context.now),
            Some(Inactivity::Inactive(last_seen)) => last_seen,
        };
        let deletion = record.actions.deletions.get(&device.node_id);
        let deletion = deletion.filter(|deletion| deletion.counts(context.now));
        let stage = match deletion {
            Some(deletion) if deletion.done => Stage::Done,
            // It is held, and takes nobody's turn.
            _ if context.deny(policy, device) => Stage::Due,
            _ if !context.turns.contains(&policy.key) => Stage::Waiting,
            Some(_) => Stage::Started,
            None => Stage::Due,
        };
        self.note(policy, Field::DeleteInactive, stage);
        match stage {
            Stage::Due | Stage::Started => self.desired(policy, Change::Delete { last_seen }),
            _ => {
                if let Some(lapse) = record.actions.next_lapse(context.now) {
                    self.wake(lapse, context.now);
                }
            }
        }
    }

    fn note(&mut self, policy: &Policy, field: Field, stage: Stage) {
        self.stages.push(Action {
            policy: policy.key.clone(),
            field,
            stage,
        });
    }

    fn desired(&mut self, policy: &Policy, change: Change) {
        let known = self.changes.iter_mut().find(|(known, _)| *known == change);
        match known {
            Some((_, owners)) => owners.push(policy.key.clone()),
            None => self.changes.push((change, vec![policy.key.clone()])),
        }
    }

    fn wake(&mut self, at: Timestamp, now: Timestamp) {
        let before = self.wakes.filter(|before| *before > now);
        if at > now {
            self.wakes = Some(before.map_or(at, |before| before.min(at)));
        }
    }
}

impl PlanContext<'_> {
    /// Whether a guard of the tailnet forbids a policy to delete a device.
    fn deny(&self, policy: &Policy, device: &Device) -> bool {
        let guardrails = self.guardrails;
        guardrails
            .denies(policy, PolicyField::DeleteInactive, device)
            .is_some()
    }
}

/// Why an act must not be done now, though its time has come.
pub(super) fn hold(
    difference: &Difference,
    device: &Device,
    policies: &[(&Policy, &PolicyRecord)],
    clock_skew: Option<SignedDuration>,
) -> Option<Hold> {
    if !difference.is_action() {
        return None;
    }
    let forgets = |(policy, _): &(&Policy, &PolicyRecord)| {
        difference.concerns(&policy.key) && policy.is_in_no_cluster()
    };
    if policies.iter().any(forgets) {
        return Some(Hold::NoRecord);
    }
    if let Some(skew) = clock_skew {
        return Some(Hold::ClockSkew(skew));
    }
    let Change::ExpireKey { at, .. } = &difference.change else {
        return None;
    };
    if device.key_expiry_disabled {
        return Some(Hold::KeyNeverExpires);
    }
    if device.created.is_none() {
        return Some(Hold::JoinTimeUnknown);
    }
    let full = |(policy, record): &(&Policy, &PolicyRecord)| {
        difference.concerns(&policy.key) && record.actions.is_full(*at, &device.node_id)
    };
    policies.iter().any(full).then_some(Hold::TooManyExpiries)
}

impl Difference {
    /// Whether it is done once, and recorded before.
    #[must_use]
    pub fn is_action(&self) -> bool {
        matches!(
            self.change,
            Change::ExpireKey { .. } | Change::Delete { .. }
        )
    }

    /// Whether a device shows that an act whose answer was lost has been done.
    #[must_use]
    pub fn shows_action(&self, device: Option<&Device>, now: Timestamp) -> bool {
        match (&self.change, device) {
            (Change::Delete { .. }, device) => device.is_none(),
            (Change::ExpireKey { .. }, Some(device)) => is_past(device, now),
            _ => false,
        }
    }

    /// Whether the record of an act is to be made for one of its policies: it can be done now, or
    /// as soon as somebody approves.
    #[must_use]
    pub fn begins_for(&self, policy: &PolicyKey, claims: &FieldOwners) -> bool {
        let decides = matches!(claims.mode(policy), Mode::Enforce | Mode::Approve);
        let waits = matches!(self.hold, Some(Hold::Approval(_) | Hold::Limit(_)));
        match self.change {
            Change::ExpireKey { .. } => decides && (self.hold.is_none() || waits),
            // What waits has no call to come, and must not count for the day.
            Change::Delete { .. } => decides && self.hold.is_none(),
            _ => false,
        }
    }
}
