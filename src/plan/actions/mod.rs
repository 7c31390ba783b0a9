//! One-shot actions: expire the key of a device at a given time, and delete inactive devices.
//!
//! An action is not a state to converge to. So the status records each action before its request is sent
//! ([`ActionRecords`]), and from then on only that record decides:
//!
//! | `expireKeyAt`                                     | stage     |                                 |
//! |---------------------------------------------------|-----------|---------------------------------|
//! | before the policy's creation                      | Missed    | never sent                      |
//! | declared before, and its record dropped since     | Missed    | never sent                      |
//! | in the future                                     | Scheduled |                                 |
//! | no record, more than an hour ago                  | Missed    | never sent                      |
//! | no record, the device joined after it             | Missed    | never sent                      |
//! | no record, within the hour                        | Due       | recorded, then sent             |
//! | no record, within the hour, the key has expired   | Done      | recorded, not sent              |
//! | recorded, and `expires` has not changed since     | Started   | sent                            |
//! | recorded, and `expires` has changed               | Done      | never sent again                |
//!
//! A device is deleted only if everything that must be known about it is known ([`inactivity`]). The
//! records count how many devices a policy deletes in a day. A due action is a difference like any
//! other: the same order, guardrails, approvals, limit and reports apply.

mod delete_inactive;
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
use crate::model::{Device, DeviceField, PolicyField};

pub use delete_inactive::DeleteInactive;
use records::GRACE;
pub use records::{ActionRecords, DeletionRecord, ExpiryRecord, MAX_EXPIRIES};
pub use skew::ClockSkew;

/// The beginning of 2019: no device was seen before Tailscale existed.
const FIRST_SEEN: Timestamp = Timestamp::constant(1_546_300_800, 0);
/// How often the time is compared again: the wall clock can be set while a timer waits.
const CLOCK_CHECK: SignedDuration = SignedDuration::from_mins(10);

/// How far the one-shot action of a policy on a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It can begin now.
    Due,
    /// It has begun: the status records it.
    Started,
    /// It will never be done.
    Missed(Missed),
    /// Its time is in the future.
    Scheduled,
    /// The policy has reached its deletions for the day with other devices.
    Waiting,
    /// It has been done.
    Done,
}

/// Why a one-shot action will never be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missed {
    /// The policy is younger than the time: someone restored it, or wrote an old time.
    BeforeCreation,
    /// It could not begin within [`GRACE`].
    TooLate,
    /// The device has joined since.
    JoinedLater,
    /// The policy declared this time or a later one before, and its record was dropped: whether the
    /// action was done is unknown.
    DeclaredBefore,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeCreation => "the time lies before the creation of the policy",
            Self::TooLate => "it could not begin within an hour of the time",
            Self::JoinedLater => "the device joined the tailnet after the time",
            Self::DeclaredBefore => {
                "the policy declared this time or a later one before, and dropped it more than an hour \
                 after it"
            }
        })
    }
}

/// A one-shot action of a policy on the device of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The policy that declares it.
    pub policy: PolicyKey,
    /// [`Field::ExpireKeyAt`] or [`Field::DeleteInactive`].
    pub field: Field,
    /// How far it is.
    pub stage: Stage,
}

/// How far a policy is with expiring the key of a device; `None` if it declares no expiry.
#[must_use]
pub fn expiry(
    policy: &Policy,
    record: &PolicyRecord,
    device: &Device,
    now: Timestamp,
) -> Option<Stage> {
    let at = policy.desired.expire_key_at?;
    // Its key belongs to another tailnet.
    if device.external {
        return None;
    }
    let expiry = record.actions.expiries.get(&at);
    // Before everything else: no new key and no clock makes a finished action due again.
    if expiry.is_some_and(|expiry| expiry.done.contains(&device.node_id)) {
        return Some(Stage::Done);
    }
    // Before the record of a begun action, because a backup can restore that record too.
    if at < policy.created {
        return Some(Stage::Missed(Missed::BeforeCreation));
    }
    let started = expiry.and_then(|expiry| expiry.started.get(&device.node_id));
    // An action that is still recorded continues: its own record shows whether it took effect.
    if started.is_none() && record.actions.is_dropped(at) {
        return Some(Stage::Missed(Missed::DeclaredBefore));
    }
    if now < at {
        return Some(Stage::Scheduled);
    }
    if let Some(before) = started {
        // The request is planned, and held until the expiry can be read.
        if device.is_unknown(DeviceField::Expires) {
            return Some(Stage::Started);
        }
        // Whatever changed the expiry since, the key that was to be expired is gone.
        let same = *before == device.expires;
        return Some(if same { Stage::Started } else { Stage::Done });
    }
    if device.created.is_some_and(|created| created > at) {
        return Some(Stage::Missed(Missed::JoinedLater));
    }
    if now.duration_since(at) > GRACE {
        return Some(Stage::Missed(Missed::TooLate));
    }
    // Done without a request: a key that someone makes after this must not expire for the same time.
    Some(if is_past(device, now) {
        Stage::Done
    } else {
        Stage::Due
    })
}

/// When an expiry for this time can no longer begin.
fn after_grace(at: Timestamp) -> Timestamp {
    later(at, GRACE + SignedDuration::from_secs(1))
}

/// A time in a status can be edited: the last one that there is must not overflow.
fn later(time: Timestamp, pause: SignedDuration) -> Timestamp {
    time.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Whether the key has expired.
fn is_past(device: &Device, now: Timestamp) -> bool {
    // A key that never expires works despite its past expiry. If that is unknown, nothing shows that it has
    // expired.
    let can_expire =
        !device.is_unknown(DeviceField::KeyExpiryDisabled) && !device.key_expiry_disabled;
    can_expire && device.expires.is_some_and(|expires| expires <= now)
}

/// Whether a device is inactive for a policy that deletes inactive devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inactivity {
    /// It is not deleted before this time.
    KeptUntil(Timestamp),
    /// It is deleted, because it was last seen at this time.
    Inactive(Timestamp),
}

/// Whether a device has been inactive for so long that a policy deletes it. `None` if the policy never
/// deletes it: the device is protected, external, unreadable, or possibly connected, or its `lastSeen` is unknown or
/// implausible (before the device joined, before Tailscale existed, or in the future).
#[must_use]
pub fn inactivity(
    policy: &Policy,
    device: &Device,
    protected: bool,
    now: Timestamp,
) -> Option<Inactivity> {
    let delete_inactive = policy.desired.delete_inactive?;
    let has_selector = matches!(policy.target, Target::Selector(_));
    // Any unreadable field, even one that matters nowhere here: a deletion cannot be undone.
    let is_excluded = protected || device.external || !device.unreadable.is_empty();
    // A device that is not reported as connected may be connected all the same.
    if !has_selector || is_excluded || device.connected != Some(false) {
        return None;
    }
    let joined = device.created.unwrap_or(FIRST_SEEN).max(FIRST_SEEN);
    let last_seen = device
        .last_seen
        .filter(|seen| (joined..=now).contains(seen))?;
    let due = last_seen.checked_add(delete_inactive.inactive_for).ok()?;
    Some(if due <= now {
        Inactivity::Inactive(last_seen)
    } else {
        Inactivity::KeptUntil(due)
    })
}

/// The one-shot actions of a device's policies.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// How far each is.
    pub stages: Vec<Action>,
    /// The actions that can be done now, by the rank of the policies.
    pub changes: Vec<(Change, Vec<PolicyKey>)>,
    /// When a stage changes by the passing of time alone.
    pub wakes: Option<Timestamp>,
}

impl Actions {
    /// The one-shot actions that the policies of a device declare.
    pub fn of(
        device: &Device,
        policies: &[(&Policy, &PolicyRecord)],
        context: &PlanContext<'_>,
    ) -> Self {
        let mut actions = Self::default();
        for (policy, record) in policies {
            let kept = record.actions.expiries.keys();
            // Its record is dropped then, and not only when something else changes.
            for at in kept.filter(|at| Some(**at) != policy.desired.expire_key_at) {
                actions.wake(after_grace(*at), context.now);
            }
        }
        let mut ranked: Vec<_> = policies
            .iter()
            .filter(|(policy, _)| policy.desired.has_actions())
            .collect();
        // Policies share an action, and the first in rank owns it.
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
                // If it has not begun by then, it is missed.
                self.wake(after_grace(at), now);
            }
            Stage::Scheduled => self.wake(at.min(later(now, CLOCK_CHECK)), now),
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
        // A deletion that a guardrail denies is planned too, and shown with the reason.
        let last_seen = match inactivity(policy, device, false, context.now) {
            None => return,
            Some(Inactivity::KeptUntil(until)) => return self.wake(until, context.now),
            Some(Inactivity::Inactive(last_seen)) => last_seen,
        };
        let deletion = record.actions.deletions.get(&device.node_id);
        let deletion = deletion.filter(|deletion| deletion.counts(context.now));
        let stage = match deletion {
            Some(deletion) if deletion.done => Stage::Done,
            // A guardrail holds it, so that it must not use up one of the day's deletions.
            _ if context.denies_deletion(policy, device) => Stage::Due,
            _ if !context.turns.contains(&policy.key) => Stage::Waiting,
            Some(_) => Stage::Started,
            None => Stage::Due,
        };
        self.note(policy, Field::DeleteInactive, stage);
        match stage {
            Stage::Due | Stage::Started => self.desired(policy, Change::Delete { last_seen }),
            _ => {
                // Time alone frees one of the deletions of the day.
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
        // One request does the same action for several policies.
        let known = self.changes.iter_mut().find(|(known, _)| *known == change);
        match known {
            Some((_, owners)) => owners.push(policy.key.clone()),
            None => self.changes.push((change, vec![policy.key.clone()])),
        }
    }

    fn wake(&mut self, at: Timestamp, now: Timestamp) {
        if at > now {
            self.wakes = Some(self.wakes.map_or(at, |before| before.min(at)));
        }
    }
}

impl PlanContext<'_> {
    /// Whether a guardrail of the tailnet denies a policy the deletion of a device.
    fn denies_deletion(&self, policy: &Policy, device: &Device) -> bool {
        self.guardrails
            .denies(policy, PolicyField::DeleteInactive, device)
            .is_some()
    }
}

/// Why a due action is held.
pub(super) fn hold(
    difference: &Difference,
    device: &Device,
    policies: &[(&Policy, &PolicyRecord)],
    clock_skew: Option<SignedDuration>,
) -> Option<Hold> {
    if !difference.is_action() {
        return None;
    }
    let mut owners = policies
        .iter()
        .filter(|(policy, _)| difference.concerns(&policy.key));
    // Without a record, the next run would do it again.
    if owners.clone().any(|(policy, _)| policy.is_in_no_cluster()) {
        return Some(Hold::NoRecord);
    }
    // A wrong clock makes every offline device inactive, and every time a past one (docs/decisions/0014).
    if let Some(skew) = clock_skew {
        return Some(Hold::ClockSkew(skew));
    }
    let Change::ExpireKey { at, .. } = &difference.change else {
        return None;
    };
    if device.key_expiry_disabled {
        return Some(Hold::KeyNeverExpires);
    }
    // A time before Tailscale existed is none.
    if device.created.is_none_or(|created| created < FIRST_SEEN) {
        return Some(Hold::JoinTimeUnknown);
    }
    owners
        .any(|(_, record)| record.actions.is_full(*at, &device.node_id))
        .then_some(Hold::TooManyExpiries)
}

impl Difference {
    /// Whether it is a one-shot action, which is recorded before it is sent.
    #[must_use]
    pub fn is_action(&self) -> bool {
        matches!(
            self.change,
            Change::ExpireKey { .. } | Change::Delete { .. }
        )
    }

    /// Whether the observed device shows that an action took effect although its response was lost.
    #[must_use]
    pub fn shows_action(&self, device: Option<&Device>, now: Timestamp) -> bool {
        match (&self.change, device) {
            (Change::Delete { .. }, device) => device.is_none(),
            (Change::ExpireKey { .. }, Some(device)) => is_past(device, now),
            _ => false,
        }
    }

    /// Whether the action must be recorded for one of its policies: it can be sent now, or as soon as
    /// someone approves it.
    #[must_use]
    pub fn begins_for(&self, policy: &PolicyKey, field_owners: &FieldOwners) -> bool {
        let sends = matches!(field_owners.mode(policy), Mode::Enforce | Mode::Approve);
        let is_pending = matches!(self.hold, Some(Hold::Approval(_) | Hold::Limit(_)));
        match self.change {
            // Recorded while it is pending, so that an approval after the hour does not find it missed.
            Change::ExpireKey { .. } => sends && (self.hold.is_none() || is_pending),
            // A held deletion must not count for the day.
            Change::Delete { .. } => sends && self.hold.is_none(),
            _ => false,
        }
    }
}
