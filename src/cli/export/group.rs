//! From described devices to policies: one for each, or shared by devices with the same tags.

use std::collections::{BTreeMap, BTreeSet};

use super::{describe::Description, names::names};
use crate::{
    api::{DeviceReference, DeviceSelector, TailscaleDevicePolicySpec as Spec},
    convert,
    model::{DeviceField, ListSetting, PolicyField, Setting, TagSet},
    plan::DeviceIndex,
};

/// A policy to write.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub name: String,
    /// The devices that it targets, and the settings that it cannot declare.
    pub comments: Vec<String>,
    pub spec: Spec,
}

/// The maximum number of devices that the comment of a shared policy lists.
const MAX_LISTED: usize = 10;

/// A policy for each device that has settings to declare.
pub(super) fn one_each(descriptions: Vec<Description<'_>>) -> Vec<Manifest> {
    manifests(Vec::new(), descriptions)
}

/// One policy for the settings that all devices with certain tags share, and a policy for each device
/// that has more settings.
///
/// `all` is the whole tailnet. A selector by tags also matches devices that have more tags, and devices
/// that are not exported. A policy shares only settings that every one of them has.
pub(super) fn by_tags(descriptions: Vec<Description<'_>>, all: &DeviceIndex) -> Vec<Manifest> {
    // A device with unreadable tags may be one that a selector by tags matches.
    if all
        .devices()
        .any(|device| device.is_unknown(DeviceField::Tags))
    {
        return one_each(descriptions);
    }
    let mut fleets: Vec<Shared> = Vec::new();
    for tags in tag_sets(&descriptions) {
        let matches = |tagged: &TagSet| tags.is_subset(tagged);
        let members: Vec<&Description> = descriptions
            .iter()
            .filter(|description| matches(&description.device.tags))
            .collect();
        let own = all.devices().filter(|device| !device.external);
        // The selector would also target devices that are not exported.
        if own.filter(|device| matches(&device.tags)).count() != members.len() {
            continue;
        }
        // Two devices or more have exactly these tags, so there is a first member.
        let mut common = members[0].desired.clone();
        // A unique setting, such as a name, cannot hold for two devices.
        for setting in Setting::ALL.into_iter().filter(|it| it.is_tailnet_wide()) {
            convert::undeclare(&mut common, setting.field());
        }
        for member in &members[1..] {
            keep_equal(&mut common, &member.desired);
        }
        // A policy with fewer tags may declare it already.
        for wider in fleets.iter().filter(|wider| wider.tags.is_subset(&tags)) {
            remove_equal(&mut common, &wider.desired);
        }
        // Without a common setting, the policy would declare nothing.
        if has_settings(&common) {
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
        let shared = fleets
            .iter_mut()
            .filter(|fleet| fleet.tags.is_subset(&description.device.tags));
        let mut last = None;
        for fleet in shared {
            remove_equal(&mut description.desired, &fleet.desired);
            // The last one is the narrowest, as smaller sets of tags come first.
            last = Some(fleet);
        }
        if let Some(fleet) = last.filter(|_| !has_settings(&description.desired)) {
            let label = description.device.label();
            let gaps = description.gaps.drain(..);
            fleet.gaps.extend(gaps.map(|gap| format!("{label}: {gap}")));
        }
    }
    manifests(fleets, rest)
}

/// The settings that all devices with these tags share.
struct Shared {
    tags: TagSet,
    devices: Vec<String>,
    desired: Spec,
    /// The settings that no manifest can declare, of devices without a policy of their own.
    gaps: Vec<String>,
}

/// The exact sets of tags that two or more devices have, smaller sets first.
fn tag_sets(descriptions: &[Description<'_>]) -> Vec<TagSet> {
    let mut count: BTreeMap<&TagSet, usize> = BTreeMap::new();
    for description in descriptions {
        // A selector cannot name tags that are not valid in a policy.
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
    let mut names_and_ids: Vec<(String, String)> = Vec::new();
    let mut unnamed: Vec<(Vec<String>, Spec)> = Vec::new();
    for fleet in fleets {
        let tags: Vec<String> = fleet.tags.iter().map(ToString::to_string).collect();
        let labels = tags
            .iter()
            .map(|tag| tag.trim_start_matches("tag:"))
            .collect::<Vec<_>>()
            .join("-");
        names_and_ids.push((format!("tag-{labels}"), "fleet".to_owned()));
        let mut comment = format!("{} devices: {}", fleet.devices.len(), {
            let named = fleet.devices.iter().take(MAX_LISTED).map(String::as_str);
            named.collect::<Vec<_>>().join(", ")
        });
        if fleet.devices.len() > MAX_LISTED {
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
        comments.extend(not_declared(&fleet.gaps));
        unnamed.push((comments, spec));
    }
    for description in descriptions {
        if !has_settings(&description.desired) && description.gaps.is_empty() {
            continue;
        }
        let device = description.device;
        names_and_ids.push((device.label().to_string(), device.node_id.to_string()));
        let mut comments = vec![description.title()];
        comments.extend(not_declared(&description.gaps));
        let reference = DeviceReference {
            // By nodeId, as names and hostnames change.
            node_id: Some(device.node_id.to_string()),
            ..DeviceReference::default()
        };
        let spec = Spec {
            device: Some(reference),
            ..description.desired
        };
        unnamed.push((comments, spec));
    }
    let named = names(&names_and_ids).into_iter().zip(unnamed);
    let mut manifests: Vec<Manifest> = named
        .map(|(name, (comments, spec))| Manifest {
            name,
            comments,
            spec,
        })
        .collect();
    // Shared policies first: they declare most.
    manifests.sort_by_key(|manifest| (manifest.spec.device.is_some(), manifest.name.clone()));
    manifests
}

fn not_declared(gaps: &[String]) -> impl Iterator<Item = String> {
    gaps.iter().map(|gap| format!("Not declared: {gap}"))
}

fn has_settings(desired: &Spec) -> bool {
    *desired != Spec::default()
}

/// The fields of settings that are the same or differ as a whole. Attributes differ key by key.
fn whole_fields() -> impl Iterator<Item = PolicyField> {
    let settings = Setting::ALL.into_iter().map(Setting::field);
    settings.chain(ListSetting::ALL.into_iter().map(ListSetting::field))
}

/// Removes from `common` each setting that `other` does not declare equally.
fn keep_equal(common: &mut Spec, other: &Spec) {
    for field in whole_fields() {
        if !convert::declares_same(field, common, other) {
            convert::undeclare(common, field);
        }
    }
    attributes(common, |key, desired| {
        let others = other.posture_attributes.as_ref();
        others.is_some_and(|others| others.get(key) == Some(desired))
    });
}

/// Removes from `desired` each setting that `other` declares equally.
fn remove_equal(desired: &mut Spec, other: &Spec) {
    for field in whole_fields() {
        if convert::declares_same(field, desired, other) {
            convert::undeclare(desired, field);
        }
    }
    attributes(desired, |key, desired| {
        let others = other.posture_attributes.as_ref();
        others.is_none_or(|others| others.get(key) != Some(desired))
    });
}

/// Keeps some of the attributes. If none is left, removes the field: `{}` would declare that there are none.
fn attributes(spec: &mut Spec, keep: impl Fn(&String, &crate::api::PostureAttribute) -> bool) {
    if let Some(attributes) = &mut spec.posture_attributes {
        attributes.retain(|key, desired| keep(key, desired));
        if attributes.is_empty() {
            spec.posture_attributes = None;
        }
    }
}
