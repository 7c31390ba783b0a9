//! The state of one device: that of a policy that names it, and the details of one with a selector.

use std::collections::BTreeSet;

use super::{
    conditions::SyncState,
    ready_state::{ReadyState, failed},
    text::{bounded, count, counted, expired},
};
use crate::{
    api::{APPROVE, DeviceStatus, PendingChange, Reason, TailscaleDevicePolicyStatus},
    model::NodeId,
    plan::{Conflict, ConflictKind, Difference, Field, Hold, Why},
    tailnet::{DETAILS, DeviceReport, Failure, Retry},
};

/// What can keep a device from being in sync, the most important first.
const CAUSES: [fn(&DeviceReport) -> Option<ReadyState>; 7] = [
    superseded,
    overridden,
    failing,
    held_at_rest,
    progressing,
    about_to_be_deleted,
    dependent,
];

/// The first cause determines the state, and the message names all of them.
pub(super) fn ready_state(report: &DeviceReport) -> ReadyState {
    let causes = CAUSES.iter().filter_map(|cause| cause(report));
    first_with_others(causes).unwrap_or_else(|| as_declared(report))
}

/// The first of several causes with the others beside it. Work in progress is no cause beside another one.
pub(super) fn first_with_others(
    mut causes: impl Iterator<Item = ReadyState>,
) -> Option<ReadyState> {
    let first = causes.next()?;
    let others = causes.filter(|other| other.reason() != Reason::Progressing);
    Some(others.fold(first, ReadyState::beside))
}

/// Whether the device is as its policies declare, as far as is known.
pub(super) fn is_as_declared(report: &DeviceReport) -> bool {
    report.differences.is_empty() && report.conflicts.is_empty() && !report.unread
}

/// `fra-router (n1)`.
pub(super) fn called(report: &DeviceReport) -> String {
    format!("{} ({})", report.label, report.node)
}

/// The message comes first: the device that the policy keeps in sync is probably no longer in use.
fn superseded(report: &DeviceReport) -> Option<ReadyState> {
    let next = report.successor.as_ref()?;
    let node = &next.node;
    let remedy = if next.can_be_approved {
        format!("annotate the policy with {APPROVE}: node:{node} to bind it to {node}")
    } else {
        format!("write spec.device.nodeId: {node}")
    };
    Some(ReadyState::retrying(
        Reason::Superseded,
        format!(
            "{} is not connected, and {node}, which has the same hostname, is. The policy stays bound to \
             the former, and nothing is sent to {node}. If {node} has replaced it, {remedy}. Otherwise remove \
             or rename {node}.",
            called(report)
        ),
    ))
}

fn overridden(report: &DeviceReport) -> Option<ReadyState> {
    if report.conflicts.is_empty() {
        return None;
    }
    let called = called(report);
    let lost: Vec<_> = report.conflicts.iter().map(ToString::to_string).collect();
    let first = if report
        .conflicts
        .iter()
        .all(|lost| lost.kind == ConflictKind::Field)
    {
        format!("Another policy declares another value for {called} and takes precedence")
    } else {
        format!("Another policy takes precedence over this one, which targets {called}")
    };
    let message = format!(
        "{first}: this policy yields {}. Edit one of them.",
        lost.join(", ")
    );
    Some(if report.working {
        ReadyState::retrying(Reason::Conflicted, message)
    } else {
        ReadyState::stalled(Reason::Conflicted, message)
    })
}

fn failing(report: &DeviceReport) -> Option<ReadyState> {
    worst(report).map(|failure| failed(failure).with_message(failures(report)))
}

fn held_at_rest(report: &DeviceReport) -> Option<ReadyState> {
    held(report).filter(|_| !report.working)
}

fn progressing(report: &DeviceReport) -> Option<ReadyState> {
    (report.working || report.unread).then(|| {
        ReadyState::working(
            Reason::Progressing,
            format!(
                "The controller is applying the desired state to {}.",
                called(report)
            ),
        )
    })
}

fn about_to_be_deleted(report: &DeviceReport) -> Option<ReadyState> {
    deleting(&report.differences)
}

/// A change waits that neither is held nor fails.
pub(super) fn dependent(report: &DeviceReport) -> Option<ReadyState> {
    let fails = |field: &Field| {
        let mut failures = report.failures.iter();
        // Nothing is sent to a device that could not be read.
        failures.any(|(of, _)| of.as_ref().is_none_or(|of| of == field))
    };
    let open = report.differences.iter().filter(|it| it.hold.is_none());
    let mut waiting = open.filter(|it| {
        let field = it.change.field();
        // About to be deleted: another cause says it.
        !fails(&field) && field != Field::DeleteInactive
    });
    let reason = |difference: &Difference| {
        let field = difference.change.field();
        let mut waits = report.waits.iter();
        waits.find_map(|(of, why)| (*of == field).then(|| why.clone()))
    };
    let first = waiting.clone().next()?;
    let known = waiting.find_map(|it| Some((&it.change, reason(it)?)));
    let message = match known {
        Some((change, why)) => format!("{}: {change:#} is not sent: {why}.", called(report)),
        // It is under way.
        None if report.working => return None,
        None => format!(
            "{}: {} waits until the settings of the device's other policies are in sync. Check those of them \
             that are held, suspended or failing.",
            called(report),
            first.change
        ),
    };
    Some(ReadyState::retrying(Reason::DependencyNotReady, message))
}

fn as_declared(report: &DeviceReport) -> ReadyState {
    let called = called(report);
    let expired = expired(&report.expired);
    ReadyState::done(Reason::InSync, format!("{called} is in sync.{expired}"))
}

/// A deletion waits for a complete list of devices.
pub(super) fn deleting(differences: &[Difference]) -> Option<ReadyState> {
    let first = differences
        .iter()
        .find(|difference| difference.change.field() == Field::DeleteInactive)?;
    Some(ReadyState::working(
        Reason::Progressing,
        format!(
            "The controller is about to delete {} ({}), which is inactive. It waits for a list that has \
             about as many devices as the one before.",
            first.device, first.node
        ),
    ))
}

/// Why differences are held, and what releases them.
fn held(report: &DeviceReport) -> Option<ReadyState> {
    first_with_others(holds(report).into_iter().map(|(_, state)| state))
}

/// Each reason for which differences are held once, the most severe first.
pub(super) fn holds(report: &DeviceReport) -> Vec<(String, ReadyState)> {
    let mut reasons: BTreeSet<String> = BTreeSet::new();
    let mut states = Vec::new();
    for difference in &report.differences {
        if let Some(hold) = &difference.hold
            && reasons.insert(hold.to_string())
        {
            states.push((hold.to_string(), held_by(report, difference, hold)));
        }
    }
    states.sort_by_key(|(_, state)| state.severity());
    states
}

fn held_by(report: &DeviceReport, difference: &Difference, hold: &Hold) -> ReadyState {
    let called = called(report);
    let change = &difference.change;
    let message = format!("{called}: {change:#} is held: {hold}.");
    let reason = hold.reason();
    match hold {
        // Only an edit of the policy helps.
        Hold::AddressSwap(_)
        | Hold::TooManyExpiries
        | Hold::WouldUnselect(_)
        | Hold::Protected
        | Hold::NotAllowed(_) => ReadyState::stalled(reason, message),
        // The mode of the report states who suspended the policy.
        Hold::Suspended(_) => ReadyState::done(reason, message),
        Hold::Observed => ReadyState::done(reason, observed(report, &called)),
        Hold::Disruption(_)
        | Hold::AddressInUse(_)
        | Hold::AttributeConflict { .. }
        | Hold::KeyNeverExpires
        | Hold::NoRecord
        | Hold::JoinTimeUnknown
        | Hold::ClockSkew(_)
        | Hold::NameTaken(_)
        | Hold::Approval(_)
        | Hold::NotInApprovedPlan
        | Hold::Limit(_)
        | Hold::Unreadable(_)
        | Hold::LockedOut(_) => ReadyState::retrying(reason, message),
    }
}

fn observed(report: &DeviceReport, called: &str) -> String {
    let differences = counted(report.differences.len(), "difference");
    format!(
        "{called} has {differences}, listed under status.pending. Nothing is sent, as the \
         policy only observes. Write enforcement: Enforce to apply the desired state."
    )
}

/// The failure that determines the reason: one that only an edit fixes comes before one that time
/// may fix.
pub(super) fn worst(report: &DeviceReport) -> Option<&Failure> {
    let all = || report.failures.iter().map(|(_, failure)| failure);
    all()
        .find(|failure| failure.retry == Retry::Never)
        .or_else(|| all().next())
}

pub(super) fn failures(report: &DeviceReport) -> String {
    let reported = report.failures.iter().map(|(field, failure)| match field {
        Some(field) => format!("{field}: {}", failure.message),
        None => failure.message.clone(),
    });
    reported.collect::<Vec<_>>().join(" ")
}

pub(super) fn in_sync(report: &DeviceReport) -> SyncState {
    // Before `unread`: a difference that is known does not wait for the other reads.
    if !report.differences.is_empty() && report.differences.iter().all(Difference::is_unknown) {
        return SyncState::NotYet;
    }
    if !report.differences.is_empty() {
        let changes = report
            .differences
            .iter()
            .map(|difference| difference.change.to_string());
        return SyncState::No(changes.take(DETAILS).collect::<Vec<_>>().join("; "));
    }
    if !report.conflicts.is_empty() {
        return SyncState::overridden();
    }
    if report.unread {
        return SyncState::NotYet;
    }
    SyncState::Yes
}

pub(super) fn describe(
    status: &mut TailscaleDevicePolicyStatus,
    report: &DeviceReport,
    ready: &ReadyState,
) {
    let as_declared = is_as_declared(report);
    status.matched_devices = Some(1);
    status.in_sync_devices = Some(u32::from(as_declared));
    status.devices = vec![DeviceStatus {
        node_id: report.node.to_string(),
        name: report.label.clone(),
        in_sync: as_declared,
        reason: (!as_declared).then(|| ready.reason().to_string()),
        message: None,
    }];
    let waits = |difference: &Difference| {
        let field = difference.change.field();
        let mut waits = report.waits.iter();
        waits.find_map(|(of, why)| (*of == field).then_some(why))
    };
    let impact = |difference: &Difference| {
        let field = difference.change.field();
        let mut impacts = report.impacts.iter();
        impacts.find_map(|(of, words)| (*of == field).then(|| words.clone()))
    };
    let differences = report.differences.iter();
    let overridden = report.conflicts.iter();
    let pending = differences
        .map(|it| PendingChange {
            disruptive: impact(it).map(words),
            ..pending(it, waits(it))
        })
        .chain(overridden.map(|it| pending_conflict(&report.node, &report.label, it)));
    status.pending = pending.take(DETAILS).collect();
    let total = count(report.differences.len() + report.conflicts.len());
    status.pending_total = (total > 0).then_some(total);
    let held = report.differences.iter().filter(|it| it.is_held()).count();
    status.held_changes = (held > 0).then(|| count(held));
}

/// Bytes: of a long list of tags or routes, the end gives way to the size of a status.
const MAX_WORDS: usize = 160;

/// What a change takes from a device, in a status.
pub(super) fn words(impact: String) -> String {
    bounded(impact, MAX_WORDS)
}

/// A declared value that another policy overrides.
pub(super) fn pending_conflict(node: &NodeId, label: &str, conflict: &Conflict) -> PendingChange {
    PendingChange {
        device: node.to_string(),
        name: label.to_owned(),
        field: conflict.field.to_string(),
        before: String::new(),
        after: conflict.declared.clone(),
        reason: Why::Declared.to_string(),
        disruptive: None,
        held: Some(format!("overridden by {}", conflict.by())),
    }
}

/// A difference, with what it waits for if nothing holds it.
pub(super) fn pending(difference: &Difference, waits: Option<&String>) -> PendingChange {
    let held = difference.hold.as_ref().map(ToString::to_string);
    let (before, after) = difference.change.brief();
    PendingChange {
        device: difference.node.to_string(),
        name: difference.device.clone(),
        field: difference.change.field().to_string(),
        before,
        after,
        reason: difference.why.to_string(),
        disruptive: None,
        held: held.or_else(|| waits.cloned()),
    }
}
