//! Reads the record of a policy from its status, and writes it there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{self, TailscaleDevicePolicyStatus},
    model::{AttributeKey, PolicyField, Route, RouteSet},
    plan::{
        ActionRecords, Bound, DeletionRecord, ExpiryRecord, KeyExpiries, ManagedDevices,
        ManagedFields, ManagedSettings, OwnedKeys, OwnedRecord, PolicyRecord, ReleasedFields,
        Rivals,
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
    let rivals = || {
        let rivals = status.ambiguous_devices.as_ref()?;
        Some(Arc::new(Rivals {
            named: rivals.named.clone(),
            nodes: readable(&rivals.node_ids, |id| id.parse().ok()),
        }))
    };
    let expiries = || {
        let expiries = status.attribute_expiries.as_ref()?.iter();
        let readable = expiries.filter_map(|(key, at)| Some((key.parse().ok()?, at.0)));
        Some(KeyExpiries::recorded(readable.collect()))
    };
    let hash = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    PolicyRecord {
        bound: bound().filter(|_| is_of_tailnet),
        rivals: rivals().filter(|_| is_of_tailnet),
        owned: Arc::new(owned.unwrap_or_default()),
        fields: if is_of_tailnet {
            managed_fields(status)
        } else {
            ManagedFields::default()
        },
        key_expiries: expiries().filter(|_| is_of_tailnet).unwrap_or_default(),
        handled: status.last_handled_reconcile_at.clone(),
        // Of every tailnet: an approval that was used must not work again.
        approvals_used: status.approvals_used.unwrap_or_default(),
        approved: hash(status.last_approved_plan.as_ref()),
        held: hash(status.held_plan.as_ref().map(|held| &held.hash)),
        // Of every tailnet: the rules refuse another tailnetRef while a policy clears.
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

fn managed_fields(status: &TailscaleDevicePolicyStatus) -> ManagedFields {
    let field = |name: &str| PolicyField::ALL.into_iter().find(|it| it.as_str() == name);
    let released = status.released_fields.as_ref().map(|it| ReleasedFields {
        generation: it.generation,
        fields: readable(&it.fields, field),
        devices: usize::try_from(it.devices).unwrap_or_default(),
    });
    ManagedFields {
        fields: readable(&status.managed_fields, field),
        released: released.filter(|it| !it.fields.is_empty()),
    }
}

fn actions(status: &api::RecordedActions) -> ActionRecords {
    let mut actions = ActionRecords::default();
    for kept in &status.key_expiries {
        // Without its time, the record would belong to no action.
        let Ok(at) = kept.at.parse() else {
            continue;
        };
        let record: &mut ExpiryRecord = actions.expiries.entry(at).or_default();
        let started = kept.started.iter().filter_map(|started| {
            let before = started.expires_before.as_ref().map(|time| time.parse());
            // `before` must not become `None` by an error: that means a key that never expires.
            Some((started.node_id.parse().ok()?, before.transpose().ok()?))
        });
        record.started.extend(started);
        record
            .done
            .extend(readable(&kept.done, |id| id.parse().ok()));
        // Two entries of one time cannot come from the controller, but none of their facts may be
        // lost.
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

fn managed(status: &api::RecordedDevices) -> ManagedDevices {
    let mut released: BTreeMap<ManagedSettings, BTreeSet<_>> = BTreeMap::new();
    for group in &status.released {
        let settings = ManagedSettings {
            keys: readable(&group.attributes, |key| key.parse().ok()),
            routes: readable(&group.routes, |route| Route::reported(route).ok()),
        };
        let nodes = readable(&group.node_ids, |id| id.parse().ok());
        // Groups that differ only in what cannot be parsed become one.
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

/// Kubernetes stores times without fractions of a second.
#[must_use]
pub fn whole_second(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Writes a record into a status: everything that must survive a restart, except for the plan that is held,
/// which the status describes. `unrecorded` is the number of devices whose keys do not fit.
pub fn write_record(
    status: &mut TailscaleDevicePolicyStatus,
    record: &PolicyRecord,
    owned: &OwnedRecord,
    uid: &str,
    unrecorded: usize,
) {
    if let Some(bound) = &record.bound {
        status.node_id = Some(bound.node.to_string());
        status.node_owner = Some(bound.owner.to_string());
        status.bound_as = Some(bound.named.clone());
    }
    status.ambiguous_devices = record.rivals.as_ref().map(|rivals| api::AmbiguousDevices {
        named: rivals.named.clone(),
        node_ids: rivals.nodes.iter().map(ToString::to_string).collect(),
    });
    status.last_handled_reconcile_at.clone_from(&record.handled);
    let used = record.approvals_used;
    // Absent and not 0, so that a policy without approvals has no such field.
    status.approvals_used = (used > 0).then_some(used);
    status.last_approved_plan = record.approved.as_ref().map(ToString::to_string);
    status.managed_fields = texts(&record.fields.fields);
    status.released_fields = record.fields.released.as_ref().map(released_status);
    status.managed_devices = managed_status(&record.managed);
    let actions = &record.actions;
    status.action_records = (!actions.is_empty()).then(|| actions_status(actions));
    // Once for each key, however many groups have it: the API server refuses duplicates in a set.
    let names: BTreeSet<&AttributeKey> = owned.names().collect();
    status.owned_attributes = names.into_iter().map(ToString::to_string).collect();
    let expiries: BTreeMap<_, _> = record
        .key_expiries
        .iter()
        .map(|(key, at)| (key.to_string(), Time(at)))
        .collect();
    status.attribute_expiries = (!expiries.is_empty()).then_some(expiries);
    status.attribute_record = owned.to_status(uid, unrecorded);
}

fn released_status(released: &ReleasedFields) -> api::ReleasedFields {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    api::ReleasedFields {
        generation: released.generation,
        count: number(released.fields.len()),
        fields: texts(&released.fields),
        devices: number(released.devices),
    }
}

fn managed_status(managed: &ManagedDevices) -> Option<api::RecordedDevices> {
    let released = managed
        .released
        .iter()
        .map(|(settings, nodes)| api::RecordedRelease {
            node_ids: texts(nodes),
            attributes: texts(&settings.keys),
            routes: texts(&settings.routes),
        });
    let mut partly: BTreeMap<&RouteSet, Vec<String>> = BTreeMap::new();
    for (id, routes) in managed.partly.iter() {
        // Grouped, as few devices differ in their routes: an entry for each would fill the status.
        partly.entry(routes).or_default().push(id.to_string());
    }
    let partly_managed = partly
        .into_iter()
        .map(|(routes, node_ids)| api::RecordedPart {
            node_ids,
            routes: texts(routes),
        });
    (!managed.is_empty()).then(|| api::RecordedDevices {
        partly_managed: partly_managed.collect(),
        node_ids: texts(&managed.nodes),
        routes: texts(&managed.routes),
        released: released.collect(),
    })
}

fn actions_status(records: &ActionRecords) -> api::RecordedActions {
    let expiries = records.expiries.iter().map(|(at, record)| {
        let started = record
            .started
            .iter()
            .map(|(id, before)| api::StartedExpiry {
                node_id: id.to_string(),
                expires_before: before.map(|before| before.to_string()),
            });
        api::KeyExpiries {
            at: at.to_string(),
            started: started.collect(),
            done: record.done.iter().map(ToString::to_string).collect(),
            missed_reported: record.missed_reported,
        }
    });
    let deletions = records
        .deletions
        .iter()
        .map(|(id, record)| api::DeletedDevice {
            node_id: id.to_string(),
            name: record.name.clone(),
            at: whole_second(record.at),
            done: record.done,
        });
    api::RecordedActions {
        key_expiries: expiries.collect(),
        deletions: deletions.collect(),
        dropped_until: records.dropped_until.map(|time| time.to_string()),
    }
}

fn texts<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
