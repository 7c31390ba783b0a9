//! The words of a story for devices, policies, requests, and reports.

use std::fmt::Display;

use crate::{
    model::{Attributes, Device, Route, SettingValue},
    plan::{Call, Deletion, DesiredSettings, ListOwnership, Policy, Selector, Target},
    tailnet::{DeviceReport, Failure, PolicyReport, State, tests::simulation::model::Faults},
};

fn list<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|it| it.to_string()).collect();
    format!("[{}]", all.join(", "))
}

pub fn routes<'a>(routes: impl IntoIterator<Item = &'a Route>) -> String {
    list(routes)
}

pub fn attributes(attributes: &Attributes) -> String {
    list(
        attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    )
}

/// The state of a device.
pub fn device(device: &Device) -> String {
    let first = format!("{} ({}, {})", device.node_id, device.hostname, device.name);
    let mut words = vec![first];
    let mut add = |it: String| words.push(it);
    add(format!("tags {}", list(&device.tags)));
    if device.tags.is_empty() {
        add(format!("of {}", device.user));
    }
    match &device.enabled_routes {
        Some(enabled) => add(format!("routes {}", routes(enabled))),
        None => add("routes unknown".to_owned()),
    }
    if let Some(ip) = device.ipv4 {
        add(ip.to_string());
    }
    if !device.authorized {
        add("not authorized".to_owned());
    }
    if device.key_expiry_disabled {
        add("key never expires".to_owned());
    } else if let Some(expires) = device.expires {
        add(format!("key expires {expires}"));
    }
    if device.external {
        add("shared in".to_owned());
    }
    if device.connected == Some(false) {
        add("offline".to_owned());
    }
    words.join(", ")
}

fn selector(selector: &Selector) -> String {
    let mut parts = vec![format!("all devices with tags {}", list(&selector.tags))];
    if !selector.users.is_empty() {
        parts.push(format!("users {:?}", selector.users));
    }
    if !selector.hostnames.is_empty() {
        parts.push(format!("hostnames {:?}", selector.hostnames));
    }
    if let Some(expression) = &selector.expression {
        parts.push(format!("expression {expression:?}"));
    }
    parts.join(", ")
}

fn desired(desired: &DesiredSettings, add: &mut impl FnMut(String)) {
    if let Some(authorized) = desired.authorized() {
        add(format!("authorized {authorized}"));
    }
    if let Some(tags) = &desired.tags {
        add(format!("tags {}", list(tags)));
    }
    if let Some(disabled) = desired.key_expiry_disabled() {
        add(format!("key expiry disabled {disabled}"));
    }
    if let Some(enabled) = &desired.enabled_routes {
        add(format!("routes {}", routes(enabled)));
    }
    if let Some(exit) = desired.exit_node {
        add(format!("exit node {exit}"));
    }
    if let Some(named) = &desired.attributes {
        let named = named.iter().map(|(key, value)| format!("{key}={value}"));
        add(format!("attributes {}", list(named)));
    }
    if let Some(name) = desired.name() {
        add(format!("name {name}"));
    }
    if let Some(ip) = desired.ipv4() {
        add(format!("address {ip}"));
    }
    if let Some(at) = desired.expire_key_at {
        add(format!("key expired at {at}"));
    }
    if let Some(inactive) = &desired.delete_inactive {
        add(format!("deletes inactive devices: {inactive:?}"));
    }
}

/// What a policy declares.
pub fn policy(policy: &Policy) -> String {
    let target = match &policy.target {
        Target::Device(target) => format!("{}, tags {}", target.identity, list(&target.tags)),
        Target::Selector(of) => selector(of),
    };
    let mut words = vec![format!("{}: for {target}: {:?}", policy.key, policy.mode)];
    let mut add = |it: String| words.push(it);
    desired(&policy.desired, &mut add);
    let own = &policy.ownership;
    for (field, extent) in [("tags", own.tags), ("routes", own.enabled_routes)] {
        if extent == ListOwnership::AtLeast {
            add(format!("at least these {field}"));
        }
    }
    if own.attributes != crate::plan::AttributesOwnership::Named {
        add("all attributes".to_owned());
    }
    if policy.deletion == Deletion::Clear {
        add("Clear".to_owned());
    }
    if !policy.allowed.is_empty() {
        add(format!("allows {:?}", policy.allowed));
    }
    if policy.priority != 0 {
        add(format!("priority {}", policy.priority));
    }
    words.join(", ")
}

/// What a request asks for.
pub fn call(call: &Call) -> String {
    match call {
        Call::Set(id, SettingValue::Authorized(value)) => format!("authorized of {id}: {value}"),
        Call::Set(id, value) => format!("{value:?} of {id}"),
        Call::SetTags(id, tags) => format!("tags of {id}: {}", list(tags)),
        Call::SetRoutes(id, enabled) => format!("routes of {id}: {}", routes(enabled)),
        Call::ExpireKey(id) => format!("expire the key of {id}"),
        Call::Delete(id) => format!("delete {id}"),
        Call::WriteAttributes(nodes) => {
            let writes = nodes.iter().flat_map(|(id, writes)| {
                writes.iter().map(move |(key, value)| match value {
                    Some(value) => format!("{id} {key}={value}"),
                    None => format!("{id} delete {key}"),
                })
            });
            format!("attributes {}", list(writes))
        }
    }
}

pub fn failure(failure: &Failure) -> String {
    let lost = if failure.unknown_outcome {
        ", it may have taken effect"
    } else {
        ""
    };
    format!("{} ({:?}{lost})", failure.reason, failure.retry)
}

/// What a status says.
pub fn report(report: &PolicyReport) -> String {
    let mut words = state(&report.state);
    let record = &report.record;
    for id in record.owned.nodes() {
        let keys = record.owned.known_at(id).into_iter().flatten();
        words.push(format!("owns {} of {id}", list(keys)));
    }
    if !record.managed.is_empty() {
        words.push(format!("would clear {}", list(&record.managed.nodes)));
    }
    if let Some(held) = &report.held {
        words.push(format!(
            "holds plan {} of {} changes",
            held.hash, held.changes
        ));
    }
    words.join("; ")
}

fn state(state: &State) -> Vec<String> {
    match state {
        State::Bound(of) => vec![device_report(of)],
        State::Selector(of) => {
            let counts = format!(
                "{} devices, {} in sync, {} changes open",
                of.matched, of.in_sync, of.out_of_sync
            );
            let has_news =
                |it: &&DeviceReport| !it.differences.is_empty() || !it.failures.is_empty();
            let details = of.details.iter().filter(has_news).map(device_report);
            [counts].into_iter().chain(details).collect()
        }
        State::Unbound { named, binding, .. } => vec![format!("{named} is {binding:?}")],
        other => vec![format!("{other:?}")],
    }
}

fn device_report(report: &DeviceReport) -> String {
    let mut words = vec![report.node.to_string()];
    if report.working {
        words.push("working".to_owned());
    }
    if report.unread {
        words.push("not read".to_owned());
    }
    words.extend(report.differences.iter().map(|it| match &it.hold {
        Some(hold) => format!("{} ({hold:?})", it.change),
        None => it.change.to_string(),
    }));
    let lost = report.conflicts.iter();
    words.extend(lost.map(|it| format!("{} overridden by {}", it.field, it.owner)));
    words.extend(report.failures.iter().map(|(field, error)| {
        let field = field
            .as_ref()
            .map_or("a read".to_owned(), ToString::to_string);
        format!("{field} fails: {}", error.reason)
    }));
    words.join(", ")
}

pub fn faults(faults: &Faults) -> String {
    let mut words = Vec::new();
    for (share, of) in [
        (faults.lost, "requests are lost"),
        (faults.answer_lost, "answers are lost"),
        (faults.server_error, "are answered 500"),
        (faults.rate_limited, "are answered 429"),
    ] {
        if share > 0.0 {
            words.push(format!("{:.0} % {of}", share * 100.0));
        }
    }
    for (wait, of) in [
        (faults.delay, "latency"),
        (faults.list_delay, "more for a list"),
        (faults.queue, "for the budget"),
        (faults.connect, "for a connection"),
    ] {
        if !wait.is_zero() {
            words.push(format!("up to {wait:?} {of}"));
        }
    }
    words.join(", ")
}
