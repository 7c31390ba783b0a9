//! From described devices to policies: one for each, or shared by those of equal tags.

use std::collections::{BTreeMap, BTreeSet};

use super::{describe::Description, names::names};
use crate::{
    api::{DeviceReference, DeviceSelector, TailscaleDevicePolicySpec as Spec},
    model::TagSet,
    plan::DeviceIndex,
};

/// A policy to write.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub name: String,
    /// Whom it is about, and what it does not say.
    pub comments: Vec<String>,
    pub spec: Spec,
}

/// How many devices of a fleet are named in its comment.
const NAMED: usize = 10;

/// A policy for each device of which there is something to say.
pub(super) fn one_each(descriptions: Vec<Description<'_>>) -> Vec<Manifest> {
    manifests(Vec::new(), descriptions)
}

/// What all devices with certain tags have in common, in one policy; and a policy for each device
/// that has more to say.
///
/// `all` is the whole tailnet: a selector of tags fits the devices that have more tags as well, and
/// those that are not exported. Only what is true of every one of them is shared.
pub(super) fn by_tags(descriptions: Vec<Description<'_>>, all: &DeviceIndex) -> Vec<Manifest> {
    let mut fleets: Vec<Shared> = Vec::new();
    for tags in tag_sets(&descriptions) {
        let fits = |tagged: &TagSet| tags.is_subset(tagged);
        let members: Vec<&Description> = descriptions
            .iter()
            .filter(|description| fits(&description.device.tags))
            .collect();
        let own = all.devices().filter(|device| !device.external);
        if own.filter(|device| fits(&device.tags)).count() != members.len() {
            continue;
        }
        let mut common = members[0].desired.clone();
        // No two devices can have one.
        (common.name, common.ipv4) = (None, None);
        for member in &members[1..] {
            keep_equal(&mut common, &member.desired);
        }
        // A larger fleet may say it already.
        for wider in fleets.iter().filter(|wider| wider.tags.is_subset(&tags)) {
            remove_equal(&mut common, &wider.desired);
        }
        if says_something(&common) {
            let devices = members
                .iter()
                .map(|member| member.device.label().to_string());
            fleets.push(Shared {
                devices: devices.collect(),
                desired: common,
                gaps: Vec::new(),
                tags,
            });
        }
    }
    let mut rest = descriptions;
    for description in &mut rest {
        let held = fleets
            .iter_mut()
            .filter(|fleet| fleet.tags.is_subset(&description.device.tags));
        let mut last = None;
        for fleet in held {
            remove_equal(&mut description.desired, &fleet.desired);
            last = Some(fleet);
        }
        if let Some(fleet) = last.filter(|_| !says_something(&description.desired)) {
            let label = description.device.label();
            let gaps = description.gaps.drain(..);
            fleet.gaps.extend(gaps.map(|gap| format!("{label}: {gap}")));
        }
    }
    manifests(fleets, rest)
}

/// What the devices that have these tags share.
struct Shared {
    tags: TagSet,
    devices: Vec<String>,
    desired: Spec,
    /// What could not be said of devices that have no policy of their own.
    gaps: Vec<String>,
}

/// The sets of tags that two devices or more have exactly, the smaller ones first.
fn tag_sets(descriptions: &[Description<'_>]) -> Vec<TagSet> {
    let mut count: BTreeMap<&TagSet, usize> = BTreeMap::new();
    for description in descriptions {
        // Tags that cannot be named cannot be selected by.
        if description.desired.tags.is_some() {
            *count.entry(&description.device.tags).or_default() += 1;
        }
    }
    let shared = count.into_iter().filter(|(_, count)| *count > 1);
    let mut sets: Vec<TagSet> = shared.map(|(tags, _)| tags.clone()).collect();
    sets.sort_by_key(BTreeSet::len);
    sets
}

fn manifests(fleets: Vec<Shared>, descriptions: Vec<Description<'_>>) -> Vec<Manifest> {
    let mut things: Vec<(String, String)> = Vec::new();
    let mut unnamed: Vec<(Vec<String>, Spec)> = Vec::new();
    for fleet in fleets {
        let tags: Vec<String> = fleet.tags.iter().map(ToString::to_string).collect();
        let called = tags.iter().map(|tag| tag.trim_start_matches("tag:"));
        let called = called.collect::<Vec<_>>().join("-");
        things.push((format!("tag-{called}"), "fleet".to_owned()));
        let mut comment = format!("{} devices: {}", fleet.devices.len(), {
            let named = fleet.devices.iter().take(NAMED).map(String::as_str);
            named.collect::<Vec<_>>().join(", ")
        });
        if fleet.devices.len() > NAMED {
            comment += " …";
        }
        let selector = DeviceSelector {
            tags: Some(tags),
            ..DeviceSelector::default()
        };
        let spec = Spec {
            device_selector: Some(selector),
            ..fleet.desired
        };
        let mut comments = vec![comment];
        comments.extend(not_represented(&fleet.gaps));
        unnamed.push((comments, spec));
    }
    for description in descriptions {
        if !says_something(&description.desired) && description.gaps.is_empty() {
            continue;
        }
        let device = description.device;
        things.push((device.label().to_string(), device.node_id.to_string()));
        let mut comments = vec![description.title()];
        comments.extend(not_represented(&description.gaps));
        let reference = DeviceReference {
            node_id: Some(device.node_id.to_string()),
            ..DeviceReference::default()
        };
        let spec = Spec {
            device: Some(reference),
            ..description.desired
        };
        unnamed.push((comments, spec));
    }
    let named = names(&things).into_iter().zip(unnamed);
    let mut manifests: Vec<Manifest> = named
        .map(|(name, (comments, spec))| Manifest {
            name,
            comments,
            spec,
        })
        .collect();
    // Fleets first: they say most.
    manifests.sort_by_key(|manifest| (manifest.spec.device.is_some(), manifest.name.clone()));
    manifests
}

fn not_represented(gaps: &[String]) -> impl Iterator<Item = String> {
    gaps.iter().map(|gap| format!("Not represented: {gap}"))
}

fn says_something(desired: &Spec) -> bool {
    *desired != Spec::default()
}

/// Drops from `common` what `other` does not wish alike.
fn keep_equal(common: &mut Spec, other: &Spec) {
    fn keep<T: PartialEq>(slot: &mut Option<T>, other: Option<&T>) {
        if slot.as_ref() != other {
            *slot = None;
        }
    }
    keep(&mut common.authorized, other.authorized.as_ref());
    keep(&mut common.tags, other.tags.as_ref());
    keep(&mut common.key_expiry, other.key_expiry.as_ref());
    keep(&mut common.enabled_routes, other.enabled_routes.as_ref());
    keep(&mut common.exit_node, other.exit_node.as_ref());
    attributes(common, |key, desired| {
        let others = other.posture_attributes.as_ref();
        others.is_some_and(|others| others.get(key) == Some(desired))
    });
}

/// Drops from `wishes` what is in `said` alike.
fn remove_equal(desired: &mut Spec, message: &Spec) {
    fn remove<T: PartialEq>(slot: &mut Option<T>, message: Option<&T>) {
        if slot.is_some() && slot.as_ref() == message {
            *slot = None;
        }
    }
    remove(&mut desired.authorized, message.authorized.as_ref());
    remove(&mut desired.tags, message.tags.as_ref());
    remove(&mut desired.key_expiry, message.key_expiry.as_ref());
    remove(&mut desired.enabled_routes, message.enabled_routes.as_ref());
    remove(&mut desired.exit_node, message.exit_node.as_ref());
    attributes(desired, |key, desired| {
        let message = message.posture_attributes.as_ref();
        message.is_none_or(|message| message.get(key) != Some(desired))
    });
}

/// Keeps some of the attributes; none is no wish, as `{}` would be one.
fn attributes(spec: &mut Spec, keep: impl Fn(&String, &crate::api::PostureAttribute) -> bool) {
    if let Some(attributes) = &mut spec.posture_attributes {
        attributes.retain(|key, desired| keep(key, desired));
        if attributes.is_empty() {
            spec.posture_attributes = None;
        }
    }
}
