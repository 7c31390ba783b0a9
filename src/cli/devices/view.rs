use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{
        output::printable,
        table::{Style, keep_words, lines},
    },
    model::{Device, DeviceField, NodeId, RouteSet, TagSet},
    plan::{DeviceIndex, Owner, PolicyInput, Selector, bind},
};

/// In the place of what cannot be read.
const UNREADABLE: &str = "unreadable";

/// A device in the list.
#[expect(clippy::struct_excessive_bools, reason = "the API's own fields")]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct View<'a> {
    pub node_id: &'a NodeId,
    name: &'a str,
    hostname: &'a str,
    os: &'a str,
    client_version: &'a str,
    update_available: bool,
    ephemeral: bool,
    created: Option<Timestamp>,
    /// Empty for a device with tags.
    user: &'a str,
    tags: &'a TagSet,
    ipv4: Option<Ipv4Addr>,
    authorized: bool,
    pub external: bool,
    key_expiry_disabled: bool,
    expires: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    /// `null` if the API does not report them.
    enabled_routes: Option<&'a RouteSet>,
    advertised_routes: Option<&'a RouteSet>,
    /// Why tailnet lock keeps it out.
    #[serde(skip_serializing_if = "str::is_empty")]
    tailnet_lock_error: &'a str,
    /// The fields that cannot be read; what stands in their place means nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<&'static str>,
    /// The policies that target it. `null` if the command got no policies.
    pub managed_by: Option<Vec<String>>,
}

impl<'a> View<'a> {
    /// The devices that the selector matches, or all, sorted by name.
    pub fn of_all(
        fleet: &'a DeviceIndex,
        policies: Option<&[PolicyInput]>,
        selector: Option<&Selector>,
    ) -> Vec<Self> {
        let managers = policies.map(|policies| managers(policies, fleet));
        let devices = fleet
            .devices()
            .filter(|device| selector.is_none_or(|selector| selector.matches(device)));
        let mut views: Vec<Self> = devices
            .map(|device| Self::of(device, managers.as_ref()))
            .collect();
        views.sort_by_key(|view| (view.name, view.node_id));
        views
    }

    fn of(device: &'a Device, managers: Option<&BTreeMap<NodeId, Vec<String>>>) -> Self {
        Self {
            node_id: &device.node_id,
            name: &device.name,
            hostname: &device.hostname,
            os: &device.os,
            client_version: &device.client_version,
            update_available: device.update_available,
            ephemeral: device.ephemeral,
            created: device.created,
            user: match Owner::of(device) {
                Owner::User(_) => &device.user,
                // The API keeps the user who registered the device, but its tags own it.
                Owner::Tagged => "",
            },
            tags: &device.tags,
            ipv4: device.ipv4,
            authorized: device.authorized,
            external: device.external,
            key_expiry_disabled: device.key_expiry_disabled,
            expires: device.expires,
            // The API has sent it of connected devices too: then it is the time of the answer.
            last_seen: device.last_seen.filter(|_| device.connected != Some(true)),
            enabled_routes: device.enabled_routes.as_ref(),
            advertised_routes: device.advertised_routes.as_ref(),
            tailnet_lock_error: &device.lock_error,
            unreadable: device.unreadable.names(),
            managed_by: managers
                .map(|managers| managers.get(&device.node_id).cloned().unwrap_or_default()),
        }
    }

    fn is_unknown(&self, field: DeviceField) -> bool {
        self.unreadable.contains(&field.as_str())
    }

    /// The first label of its name; its nodeId if the name cannot be read.
    pub fn label(&self) -> &str {
        if self.is_unknown(DeviceField::Name) {
            return self.node_id.as_str();
        }
        self.name.split('.').next().unwrap_or_default()
    }

    /// Its tags, or else its user.
    pub fn owner(&self) -> String {
        if self.is_unknown(DeviceField::Tags)
            || (self.tags.is_empty() && self.is_unknown(DeviceField::User))
        {
            return UNREADABLE.to_owned();
        }
        if self.tags.is_empty() {
            printable(self.user)
        } else {
            listed(self.tags)
        }
    }

    /// When its key expires.
    pub fn key(&self, now: Timestamp) -> String {
        let fields = [DeviceField::KeyExpiryDisabled, DeviceField::Expires];
        if fields.into_iter().any(|field| self.is_unknown(field)) {
            return UNREADABLE.to_owned();
        }
        match self.expires {
            // First: the API keeps the original expiry beside keyExpiryDisabled.
            _ if self.key_expiry_disabled => "never expires".to_owned(),
            None => "no expiry known".to_owned(),
            Some(expires) if expires <= now => format!("expired {}", day(expires)),
            Some(expires) => format!("until {}", day(expires)),
        }
    }

    /// How many of its routes are enabled: `2 of 3`.
    pub fn routes(&self) -> String {
        let Some(enabled) = self.enabled_routes else {
            return "not reported".to_owned();
        };
        // Both: a route can be enabled before the device advertises it.
        let all = self.advertised_routes.into_iter().flatten().chain(enabled);
        match all.collect::<BTreeSet<_>>().len() {
            0 => String::new(),
            all => format!("{} of {all}", enabled.len()),
        }
    }

    /// When it was last seen, unless it is connected.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.last_seen
    }

    /// Why it does not take part, if so.
    pub fn state(&self) -> &'static str {
        let needed = [
            DeviceField::IsExternal,
            DeviceField::Authorized,
            DeviceField::TailnetLockError,
        ];
        match (self.external, self.authorized) {
            _ if !self.tailnet_lock_error.is_empty() => "locked out",
            _ if needed.into_iter().any(|field| self.is_unknown(field)) => UNREADABLE,
            (true, _) => "shared in",
            (false, false) => "not authorized",
            (false, true) => "",
        }
    }
}

/// The policies that target each device.
fn managers(policies: &[PolicyInput], fleet: &DeviceIndex) -> BTreeMap<NodeId, Vec<String>> {
    let mut managers: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for declared in policies {
        let Ok(policy) = &declared.policy else {
            continue;
        };
        // With the record, as in the controller: a bound policy does not follow a name to another
        // device.
        let binding = bind(&policy.target, &declared.record, &declared.approvals, fleet);
        for node in binding.nodes() {
            let of = managers.entry(node.clone()).or_default();
            of.push(policy.key.to_string());
        }
    }
    for of in managers.values_mut() {
        of.sort();
    }
    managers
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// The devices as a table.
pub(super) fn table(views: &[View<'_>], wide: bool, style: Style, now: Timestamp) -> String {
    let mut titles = vec!["NAME", "TAGS OR USER", "ROUTES", "KEY", "LAST SEEN"];
    if wide {
        titles.extend(["NODE", "HOSTNAME", "OS", "IPV4", "ENABLED", "ADVERTISED"]);
    }
    // People must learn of locked-out devices without asking for them.
    let has_state = wide
        || views.iter().any(|view| {
            !view.tailnet_lock_error.is_empty() || view.is_unknown(DeviceField::TailnetLockError)
        });
    if has_state {
        titles.push("STATE");
    }
    if views.iter().any(|view| view.managed_by.is_some()) {
        titles.push("MANAGED BY");
    }
    let mut table = style.table(titles);
    for view in views {
        let last_seen = view
            .last_seen
            .map(|time| time.strftime("%Y-%m-%d %H:%M").to_string());
        let owner = view.owner();
        let mut row = vec![
            printable(view.label()),
            if style.width.is_some() {
                short_lines(&owner)
            } else {
                owner
            },
            view.routes(),
            view.key(now),
            last_seen.unwrap_or_default(),
        ];
        if wide {
            let routes = |routes: Option<&RouteSet>| routes.map(listed).unwrap_or_default();
            row.extend([
                view.node_id.to_string(),
                printable(view.hostname),
                printable(view.os),
                view.ipv4.map(|ipv4| ipv4.to_string()).unwrap_or_default(),
                routes(view.enabled_routes),
                routes(view.advertised_routes),
            ]);
        }
        if has_state {
            row.push(view.state().to_owned());
        }
        row.extend(view.managed_by.as_ref().map(|of| of.join(", ")));
        table.add_row(row);
    }
    // What matters least goes first.
    keep_words(&mut table, style, &["LAST SEEN", "KEY", "ROUTES"]);
    lines(&table)
}

/// The most columns of a line with several tags.
const TAGS: usize = 24;

/// A list on several lines, so that no tag is broken.
fn short_lines(list: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for entry in list.split_inclusive(',') {
        match lines.last_mut() {
            Some(line) if line.len() + entry.len() <= TAGS => line.push_str(entry),
            _ => lines.push(entry.to_owned()),
        }
    }
    lines.join("\n")
}

fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(",")
}
