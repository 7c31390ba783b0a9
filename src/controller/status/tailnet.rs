//! The status of a tailnet.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    actions,
    conditions::Conditions,
    ready_state::{ReadyState, failed},
    text::{count, whole_second},
};
use crate::{
    api::{
        HeldPolicy, Reason, RecentChanges, RecentDeletions, TailscaleTailnetStatus,
        UnreadableDevice,
    },
    plan::PolicyKey,
    tailnet::{self, TailnetReport},
    tailscale::Ability,
};

/// The status of a tailnet.
#[must_use]
pub fn of_tailnet(
    old: &TailscaleTailnetStatus,
    report: &TailnetReport,
    generation: i64,
    now: Timestamp,
) -> TailscaleTailnetStatus {
    let ready = match (&report.failure, report.devices) {
        (Some(failure), _) => failed(failure),
        (None, None) => ReadyState::starting(),
        (None, Some(_)) if report.suspended => ReadyState::done(
            Reason::Suspended,
            "The controller can read the tailnet's devices. The tailnet is suspended: nothing is sent for \
             its policies. Set spec.suspend to false to continue.",
        ),
        (None, Some(_)) => ReadyState::done(Reason::Connected, connected(&report.missing_scopes)),
    };
    let ready = actions::with_clock(ready, report.clock_skew);
    let mut conditions = Conditions::new(&old.conditions, generation, now);
    conditions.set_ready(&ready);
    let mut status = TailscaleTailnetStatus {
        observed_generation: Some(generation),
        conditions: conditions.finish(),
        // Unknown until the first list of this process; until then the last values stay.
        tailnet: report.domain.clone().or(old.tailnet.clone()),
        devices: report.devices.map(count).or(old.devices),
        unmanaged_devices: report.unmanaged.map(count).or(old.unmanaged_devices),
        policies: Some(count(report.policies)),
        missing_scopes: report
            .missing_scopes
            .iter()
            .map(|lack| lack.scope().to_owned())
            .collect(),
        change_limit: match report.devices {
            Some(_) => report.change_limit.map(count),
            None => old.change_limit,
        },
        changed_devices: report.changed.map(count).or(old.changed_devices),
        last_poll_time: report
            .polled_at
            .map(whole_second)
            .or(old.last_poll_time.clone()),
        attributes_interval: Some(format!("{}s", report.attributes_interval.as_secs())),
        ..TailscaleTailnetStatus::default()
    };
    describe_unreadable(&mut status, report, old);
    describe_limit(&mut status, report, old);
    status
}

/// Adds the numbers of policies that are not ready, and that have held changes.
pub(in crate::controller) fn count_policies(
    status: &mut TailscaleTailnetStatus,
    not_ready: usize,
    held: usize,
) {
    status.not_ready_policies = Some(count(not_ready));
    status.held_policies = Some(count(held));
}

/// Leaves the time of the last poll as it is, unless it is old or anything else in the status has changed.
pub(in crate::controller) fn settle_poll_time(
    new: &mut TailscaleTailnetStatus,
    old: &TailscaleTailnetStatus,
) {
    let time = |status: &TailscaleTailnetStatus| status.last_poll_time.as_ref().map(|it| it.0);
    let shows_poll = tailnet::shows_poll(time(old), time(new));
    let polled = std::mem::replace(&mut new.last_poll_time, old.last_poll_time.clone());
    if *new != *old || !shows_poll {
        new.last_poll_time = polled;
    }
}

/// States that the tailnet can be read, and which scopes the credential lacks, before a policy
/// needs them.
fn connected(lacks: &BTreeSet<Ability>) -> String {
    let can_be_read = "The controller can read the tailnet's devices.";
    if lacks.is_empty() {
        return can_be_read.to_owned();
    }
    let missing: Vec<_> = lacks.iter().map(|lack| missing_scope(*lack)).collect();
    format!(
        "{can_be_read} The credential lacks scopes: {}.",
        missing.join("; ")
    )
}

fn missing_scope(lack: Ability) -> String {
    let fields = match lack {
        Ability::Devices => {
            "authorized, tags, keyExpiry, name, ipv4, expireKeyAt and deleteInactive"
        }
        Ability::Routes => "enabledRoutes and exitNode",
        Ability::Attributes => "postureAttributes",
    };
    format!("for {fields} add the scope {}", lack.scope())
}

/// Until the first list of this process, the last ones stay.
fn describe_unreadable(
    status: &mut TailscaleTailnetStatus,
    report: &TailnetReport,
    old: &TailscaleTailnetStatus,
) {
    if report.devices.is_none() {
        status
            .unreadable_devices
            .clone_from(&old.unreadable_devices);
        status.unreadable_devices_total = old.unreadable_devices_total;
        return;
    }
    let unreadable = report.unreadable.first.iter();
    status.unreadable_devices = unreadable
        .map(|unreadable| UnreadableDevice {
            device: unreadable.device.clone(),
            fields: unreadable.fields.iter().map(ToString::to_string).collect(),
        })
        .collect();
    let total = report.unreadable.total;
    status.unreadable_devices_total = (total > 0).then(|| count(total));
}

/// The record of recent changes stays until this process has loaded it.
fn describe_limit(
    status: &mut TailscaleTailnetStatus,
    report: &TailnetReport,
    old: &TailscaleTailnetStatus,
) {
    let limited = report.limited.iter().map(|limited| HeldPolicy {
        policy: limited.policy.to_string(),
        devices: count(limited.devices),
        hash: limited.hash.as_ref().map(ToString::to_string),
    });
    status.held = limited.collect();
    status.held_total = (report.limited_total > 0).then(|| count(report.limited_total));
    status.recent_changes = match &report.recent {
        None => old.recent_changes.clone(),
        Some(recent) => recent
            .iter()
            .map(|recent| RecentChanges {
                since: whole_second(recent.since),
                devices: count(recent.devices),
                namespace: recent.namespace.clone(),
            })
            .collect(),
    };
    status.reserved_devices = report
        .reserved
        .iter()
        .map(|(id, namespace)| match namespace {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id.to_string(),
        })
        .collect();
    let deletions = report.deletions.iter();
    status.recent_deletions = deletions
        .map(|recent| RecentDeletions {
            policy: recent.policy.as_ref().map(ToString::to_string),
            uid: recent.uid.clone(),
            since: whole_second(recent.since),
            devices: count(recent.devices),
        })
        .collect();
    if report.recent.is_none() {
        let devices = &mut status.reserved_devices;
        for id in &old.reserved_devices {
            if !devices.contains(id) {
                devices.push(id.clone());
            }
        }
        let deletions = old.recent_deletions.iter().cloned();
        status.recent_deletions.extend(deletions);
    }
    status.approval_errors.clone_from(&report.approval_errors);
}

/// The reserved devices of a tailnet's status. An older version wrote no namespaces.
pub(in crate::controller) fn reserved(status: &TailscaleTailnetStatus) -> tailnet::ReservedDevices {
    let entries = status.reserved_devices.iter();
    entries
        .filter_map(|entry| match entry.split_once('/') {
            Some((namespace, id)) => Some((id.parse().ok()?, Some(namespace.to_owned()))),
            None => Some((entry.parse().ok()?, None)),
        })
        .collect()
}

/// The deletions that a tailnet's status records.
pub(in crate::controller) fn deletions(
    status: &TailscaleTailnetStatus,
) -> Vec<tailnet::RecentDeletions> {
    let recorded = status.recent_deletions.iter();
    recorded
        .map(|recent| tailnet::RecentDeletions {
            policy: recent.policy.as_deref().and_then(recorded_key),
            uid: recent.uid.clone(),
            since: recent.since.0,
            devices: usize::try_from(recent.devices).unwrap_or(usize::MAX),
        })
        .collect()
}

fn recorded_key(text: &str) -> Option<PolicyKey> {
    let (namespace, name) = text.split_once('/')?;
    Some(PolicyKey::new(namespace, name))
}

/// The recent changes that a tailnet's status records.
pub(in crate::controller) fn recent(
    status: &TailscaleTailnetStatus,
) -> Vec<tailnet::RecentChanges> {
    let kept = status.recent_changes.iter();
    kept.map(|recent| tailnet::RecentChanges {
        since: recent.since.0,
        devices: usize::try_from(recent.devices).unwrap_or(usize::MAX),
        namespace: recent.namespace.clone(),
    })
    .collect()
}
