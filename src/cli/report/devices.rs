//! The devices as data for the script of the page. The script writes only the rows that are shown: ten thousand rows
//! would take a browser seconds.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{
        devices::View as DeviceView,
        output::{escaped, printable},
        plan::{ChangeView, PlanRun, View, words},
    },
    model::{Device, NodeId, Route},
    plan::Hold,
};

/// A device, with everything that its row shows.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    node: String,
    owner: String,
    os: String,
    ip: String,
    /// `null` without policies.
    pub policies: Option<Vec<String>>,
    pub state: &'static str,
    /// Whether it has an enabled subnet route.
    pub router: bool,
    /// Whether it is an enabled exit node.
    pub exit: bool,
    /// `2 of 3`.
    routes: String,
    key: String,
    /// Empty for a device that is connected, or that never was.
    seen: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<RowChange>,
}

/// A change of a device.
#[derive(Debug, Serialize)]
struct RowChange {
    field: String,
    words: Vec<String>,
    /// What it disrupts, or why it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// The states in the order of their urgency.
pub(super) const STATES: [&str; 10] = [
    "changes",
    "held",
    "denied",
    "not read",
    "only shown",
    "not authorized",
    "locked out",
    "unmanaged",
    "in sync",
    "shared in",
];

/// The rows of all devices, sorted by name.
pub(super) fn rows(run: &PlanRun, view: &View<'_>, has_policies: bool) -> Vec<Row> {
    let mut changes: BTreeMap<&NodeId, Vec<&ChangeView<'_>>> = BTreeMap::new();
    for change in &view.changes {
        changes.entry(change.node_id).or_default().push(change);
    }
    let policies = has_policies.then_some(run.policies.as_slice());
    let refused = run.tailnet_plan.refused.keys();
    let refused: BTreeSet<String> = refused.map(ToString::to_string).collect();
    let views = DeviceView::of_all(&run.snapshot.fleet, policies, None);
    let rows = views.into_iter().map(|device| {
        let own = changes.remove(device.node_id).unwrap_or_default();
        let unread = run.snapshot.failures.contains_key(device.node_id);
        let mut policies = device.managed_by.iter().flatten();
        let denied = policies.any(|key| refused.contains(key));
        let state = state(&device, &own, unread, denied);
        let facts = run.snapshot.fleet.get(device.node_id);
        row(&device, &own, state, facts, run.now)
    });
    rows.collect()
}

fn row(
    device: &DeviceView<'_>,
    changes: &[&ChangeView<'_>],
    state: &'static str,
    facts: Option<&Device>,
    now: Timestamp,
) -> Row {
    let enabled = facts.and_then(|it| it.enabled_routes.as_ref());
    let has = |is: fn(&Route) -> bool| enabled.is_some_and(|routes| routes.iter().any(is));
    let seen = device.last_seen();
    Row {
        name: printable(device.label()),
        node: device.node_id.to_string(),
        owner: printable(&device.owner()),
        os: facts.map(|it| printable(&it.os)).unwrap_or_default(),
        ip: facts
            .and_then(|it| it.ipv4)
            .map(|it| it.to_string())
            .unwrap_or_default(),
        policies: device.managed_by.clone(),
        state,
        router: has(|route| !route.is_exit_node()),
        exit: has(Route::is_exit_node),
        routes: device.routes(),
        key: device.key(now),
        seen: seen
            .map(|time| time.strftime("%Y-%m-%d %H:%M").to_string())
            .unwrap_or_default(),
        changes: changes.iter().map(|change| row_change(change)).collect(),
    }
}

fn row_change(change: &ChangeView<'_>) -> RowChange {
    let words = words(&change.difference.change);
    let note = match (&change.held, &change.disruptive) {
        (Some(held), _) => Some(format!("held: {held}")),
        (None, Some(disruptive)) => Some(format!("disruptive: {disruptive}")),
        (None, None) => None,
    };
    RowChange {
        field: printable(&change.field),
        words: words.iter().map(|word| printable(word)).collect(),
        note: note.map(|note| printable(&note)),
    }
}

/// One of [`STATES`], or empty for a device without any remark in a report without policies.
fn state(
    device: &DeviceView<'_>,
    changes: &[&ChangeView<'_>],
    unread: bool,
    denied: bool,
) -> &'static str {
    let holds = || changes.iter().map(|change| &change.difference.hold);
    let is_shown = |hold: &Hold| matches!(hold, Hold::Suspended(_) | Hold::Observed);
    if device.external {
        return "shared in";
    }
    match &device.managed_by {
        _ if unread => "not read",
        Some(_) if holds().any(Option::is_none) => "changes",
        Some(_) if holds().flatten().any(|hold| !is_shown(hold)) => "held",
        // What a denied policy declares is not compared, so nothing is known to be in sync.
        Some(_) if denied => "denied",
        Some(_) if !changes.is_empty() => "only shown",
        _ if ["not authorized", "locked out"].contains(&device.state()) => device.state(),
        Some(policies) if policies.is_empty() => "unmanaged",
        Some(_) => "in sync",
        None => "",
    }
}

/// JSON that can stand in an element of a page: nothing in it ends the element.
pub(super) fn json(rows: &[Row]) -> serde_json::Result<String> {
    let text = escaped(&serde_json::to_string(rows)?);
    // They occur only in strings.
    Ok(text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026"))
}
