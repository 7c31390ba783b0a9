//! Which devices share a policy, and what stays with a single device.

use super::super::{
    description::{Description, Facts, Id},
    files::Candidate,
    group::shared,
};
use crate::api::TailscaleDevicePolicySpec as Spec;

fn described(id: Id, spec: &str) -> Description {
    let desired: Spec = serde_yaml::from_str(spec).unwrap();
    Description {
        label: id.as_str().to_lowercase(),
        title: id.as_str().to_owned(),
        facts: Facts {
            tags: ["tag:a".parse().unwrap()].into(),
            ..Facts::default()
        },
        id,
        desired,
        gaps: Vec::new(),
    }
}

fn node(id: &str, spec: &str) -> Description {
    described(Id::Node(id.to_owned()), spec)
}

/// Each policy as its name, its devices and its settings.
fn policies(descriptions: &[Description]) -> Vec<String> {
    let all: Vec<Candidate> = descriptions.iter().map(Candidate::of).collect();
    let files = shared(descriptions.to_vec(), &all).unwrap();
    let manifests = files.into_iter().flat_map(|file| file.manifests);
    let told = manifests.map(|manifest| {
        let mut spec = manifest.spec;
        let selector = spec.device_selector.take();
        let selected = selector.and_then(|it| it.expression);
        let device = spec.device.take();
        let named = device.and_then(|it| it.node_id.or(it.id));
        let devices = selected.or(named).unwrap();
        let devices = devices.replace("device.nodeId in ", "").replace('\'', "");
        let settings = serde_json::to_string(&spec).unwrap().replace('"', "");
        format!("{} of {devices}: {settings}", manifest.name)
    });
    told.collect()
}

#[test]
fn more_than_half_of_the_devices_share_what_most_have_and_the_rest_is_shared_by_two_or_more() {
    let exported = policies(&[
        node("n1", "{keyExpiry: Disabled, exitNode: true}"),
        node(
            "n2",
            "{keyExpiry: Disabled, exitNode: true, enabledRoutes: [10.0.0.0/8]}",
        ),
        node(
            "n3",
            "{keyExpiry: Disabled, exitNode: true, enabledRoutes: [10.0.0.0/8]}",
        ),
        node("n4", "{keyExpiry: Disabled}"),
        node("n5", "{enabledRoutes: [10.1.0.0/16]}"),
    ]);
    assert_eq!(
        exported,
        [
            // Four of five have it, and three of five have it with the exit node.
            "tag-a of [n1, n2, n3]: {keyExpiry:Disabled,exitNode:true}",
            "tag-a-routes-10-0-0-0-8 of [n2, n3]: {enabledRoutes:[10.0.0.0/8]}",
            "n4 of n4: {keyExpiry:Disabled}",
            "n5 of n5: {enabledRoutes:[10.1.0.0/16]}",
        ]
    );
}

#[test]
fn settings_of_different_devices_are_not_shared_together() {
    let exported = policies(&[
        node("n1", "{keyExpiry: Disabled}"),
        node("n2", "{keyExpiry: Disabled}"),
        node("n3", "{keyExpiry: Disabled, exitNode: true}"),
        node("n4", "{exitNode: true}"),
        node("n5", "{exitNode: true}"),
    ]);
    assert_eq!(
        exported,
        [
            "tag-a of [n3, n4, n5]: {exitNode:true}",
            "tag-a-no-key-expiry of [n1, n2, n3]: {keyExpiry:Disabled}",
        ]
    );
}

#[test]
fn half_of_the_devices_share_only_what_they_have_alike() {
    let exported = policies(&[
        node("n1", "{keyExpiry: Disabled}"),
        node("n2", "{keyExpiry: Disabled}"),
        node("n3", "{exitNode: true}"),
        node("n4", "{}"),
    ]);
    assert_eq!(
        exported,
        [
            "tag-a-no-key-expiry of [n1, n2]: {keyExpiry:Disabled}",
            "n3 of n3: {exitNode:true}",
        ]
    );
}

#[test]
fn a_name_and_an_address_are_never_shared() {
    let spec = "{keyExpiry: Disabled, name: fra}";
    let exported = policies(&[node("n1", spec), node("n2", spec)]);
    assert_eq!(
        exported,
        [
            "tag-a of [n1, n2]: {keyExpiry:Disabled}",
            "n1 of n1: {name:fra}",
            "n2 of n2: {name:fra}",
        ]
    );
}

#[test]
fn devices_with_an_older_id_or_an_unreadable_field_share_nothing() {
    let spec = "{keyExpiry: Disabled}";
    let mut uncertain = node("n3", spec);
    uncertain.facts.is_uncertain = true;
    let exported = policies(&[
        node("n1", spec),
        node("n2", spec),
        uncertain,
        described(Id::Legacy("1004".to_owned()), spec),
    ]);
    assert_eq!(
        exported,
        [
            "n3 of n3: {keyExpiry:Disabled}",
            "tag-a of [n1, n2]: {keyExpiry:Disabled}",
            "1004 of 1004: {keyExpiry:Disabled}",
        ]
    );
}
