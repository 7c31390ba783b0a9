//! Reads the record of a policy from its status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    api::{self, TailscaleDevicePolicyStatus},
    model::Route,
    plan::{
        ActionRecords, Bound, DeletionRecord, ExpiryRecord, ManagedDevices, ManagedSettings,
        OwnedKeys, PolicyRecord,
    },
};

/// The record in a status. An unreadable entry is not one that the controller wrote, and is ignored. Bound
/// devices and keys of another tailnet do not count.
pub(super) fn record(
    status: &TailscaleDevicePolicyStatus,
    uid: &str,
    tailnet: &str,
) -> PolicyRecord {
    let is_of_tailnet = status.tailnet.as_ref().is_none_or(|of| of == tailnet);
    let owned = is_of_tailnet.then(|| OwnedKeys::of_status(status, uid));
    let bound = || {
        Some(Bound {
            node: status.node_id.as_deref()?.parse().ok()?,
            owner: status.node_owner.as_deref()?.parse().ok()?,
            named: status.bound_as.clone()?,
        })
    };
    let hash = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    PolicyRecord {
        bound: bound().filter(|_| is_of_tailnet),
        owned: Arc::new(owned.unwrap_or_default()),
        handled: status.last_handled_reconcile_at.clone(),
        approvals_used: status.approvals_used.unwrap_or_default(),
        approved: hash(status.last_approved_plan.as_ref()),
        held: hash(status.held_plan.as_ref().map(|held| &held.hash)),
        managed: Arc::new(
            status
                .managed_devices
                .as_ref()
                .map(managed)
                .unwrap_or_default(),
        ),
        actions: Arc::new(
            status
                .action_records
                .as_ref()
                .map(actions)
                .unwrap_or_default(),
        ),
    }
}

fn actions(status: &api::ActionRecords) -> ActionRecords {
    let mut actions = ActionRecords::default();
    for kept in &status.key_expiries {
        let Ok(at) = kept.at.parse() else {
            continue;
        };
        let record: &mut ExpiryRecord = actions.expiries.entry(at).or_default();
        let started = kept.started.iter().filter_map(|started| {
            let before = started.expires_before.as_ref().map(|time| time.parse());
            Some((started.node_id.parse().ok()?, before.transpose().ok()?))
        });
        record.started.extend(started);
        record
            .done
            .extend(readable(&kept.done, |id| id.parse().ok()));
        record.missed_reported |= kept.missed_reported;
    }
    let deletions = status.deletions.iter().filter_map(|kept| {
        let record = DeletionRecord {
            at: kept.at.0,
            name: kept.name.clone(),
            done: kept.done,
        };
        Some((kept.node_id.parse().ok()?, record))
    });
    actions.deletions.extend(deletions);
    let dropped = status.dropped_until.as_ref();
    actions.dropped_until = dropped.and_then(|time| time.parse().ok());
    actions
}

fn managed(status: &api::ManagedDevices) -> ManagedDevices {
    let mut released: BTreeMap<ManagedSettings, BTreeSet<_>> = BTreeMap::new();
    for group in &status.released {
        let settings = ManagedSettings {
            keys: readable(&group.attributes, |key| key.parse().ok()),
            routes: readable(&group.routes, |route| Route::reported(route).ok()),
        };
        let nodes = readable(&group.node_ids, |id| id.parse().ok());
        released.entry(settings).or_default().extend(nodes);
    }
    let partly = status.partly_managed.iter().flat_map(|group| {
        let routes: BTreeSet<Route> = readable(&group.routes, |route| Route::reported(route).ok());
        let nodes = group.node_ids.iter().filter_map(|id| id.parse().ok());
        nodes.map(move |id| (id, routes.clone()))
    });
    ManagedDevices {
        nodes: readable(&status.node_ids, |id| id.parse().ok()),
        routes: readable(&status.routes, |route| Route::reported(route).ok()),
        partly: partly.collect(),
        released,
    }
}

fn readable<T: Ord>(texts: &[String], read: impl Fn(&str) -> Option<T>) -> BTreeSet<T> {
    texts.iter().filter_map(|text| read(text)).collect()
}
