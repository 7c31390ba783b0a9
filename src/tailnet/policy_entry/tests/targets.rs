use std::collections::BTreeSet;

use crate::tailnet::tests::simulation::builders::{fleet, tag, tags};
use crate::{
    model::{Device, NodeId},
    plan::{AllowedRules, Binding, DeviceIndex, Selector},
    tailnet::{
        evaluation::{Comparison, Evaluation},
        tests::simulation::model::{device, node_id},
    },
};
use std::sync::Arc;

/// So many devices; those with an even number have `tag:s`.
fn index(count: usize) -> DeviceIndex {
    let mut index = DeviceIndex::default();
    for number in 0..count {
        index.insert(Device {
            tags: (number % 2 == 0)
                .then(|| tag("tag:s"))
                .into_iter()
                .collect(),
            ..device(number)
        });
    }
    index
}

fn selector() -> Selector {
    Selector {
        tags: [tag("tag:s")].into(),
        ..Selector::default()
    }
}

fn evaluation(index: &DeviceIndex) -> Evaluation {
    Evaluation::new(selector(), AllowedRules::default(), index)
}

fn nodes(numbers: &[usize]) -> BTreeSet<NodeId> {
    numbers.iter().map(|number| node_id(*number)).collect()
}

#[test]
fn a_share_ends_in_the_middle_and_the_next_one_goes_on() {
    let index = index(6);
    let mut evaluation = evaluation(&index);
    assert_eq!(evaluation.advance(&index, 1), 0);
    assert!(evaluation.has_devices_left() && evaluation.is_first());
    let left = evaluation.advance(&index, 1_000_000);
    assert!(!evaluation.has_devices_left() && left > 0);
    let found: Vec<NodeId> = evaluation.take_found().into_keys().collect();
    assert_eq!(found, [node_id(0), node_id(2), node_id(4)]);
}

#[test]
fn once_in_force_a_device_is_matched_again_alone_and_pending_until_that_counts() {
    let index = index(4);
    let mut policy = super::entry(fleet(tags(&["tag:a"])));
    policy
        .targets_mut()
        .begin_evaluation(selector(), AllowedRules::default(), &index);
    policy
        .targets_mut()
        .evaluation_mut()
        .unwrap()
        .advance(&index, 1_000_000);
    let (matching, failing) = policy.targets().evaluated().unwrap();
    assert_eq!((matching.clone(), failing.len()), (nodes(&[0, 2]), 0));
    policy.targets_mut().take_evaluated();
    policy.targets_mut().bind(Some(Binding::Selector(matching)));
    let evaluation = policy.targets_mut().evaluation_mut().unwrap();
    assert!(!evaluation.is_first() && !evaluation.is_pending(&node_id(1)));
    evaluation.rematch(&nodes(&[1]));
    assert!(evaluation.is_pending(&node_id(1)) && !evaluation.is_pending(&node_id(0)));
    evaluation.advance(&index, 1_000_000);
    // The result is known, and not in force yet. Binding the policy again for another reason loses none.
    assert!(evaluation.is_pending(&node_id(1)));
    policy.targets_mut().take_evaluated();
    let evaluation = policy.targets_mut().evaluation_mut().unwrap();
    assert!(evaluation.is_pending(&node_id(1)));
    let found: Vec<_> = evaluation.take_found().into_iter().collect();
    assert_eq!(found, [(node_id(1), Comparison::DoesNotMatch)]);
    assert!(!evaluation.is_pending(&node_id(1)));
    assert_eq!(policy.targets().evaluated().unwrap().0, nodes(&[0, 2]));
}

#[test]
fn a_selector_is_matched_again_if_it_or_its_allowed_devices_differ() {
    let index = index(1);
    let evaluation = evaluation(&index);
    assert!(evaluation.is_of(&selector(), &AllowedRules::default()));
    assert!(!evaluation.is_of(&Selector::default(), &AllowedRules::default()));
}

#[test]
fn an_edit_that_is_set_aside_is_intended_and_not_in_force() {
    let index = index(1);
    let (before, edited) = (fleet(tags(&["tag:a"])), fleet(tags(&["tag:b"])));
    let mut policy = super::entry(before.clone());
    policy
        .targets_mut()
        .begin_evaluation(selector(), AllowedRules::default(), &index);
    let evaluation = policy.targets_mut().evaluation_mut().unwrap();
    evaluation.set_aside(Ok(Arc::new(edited.clone())));
    assert!(policy.targets().is_set_aside() && policy.targets().is_first_evaluated());
    assert_eq!(policy.intended(), &Ok(Arc::new(edited)));
    assert_eq!(*policy.policy(), Ok(Arc::new(before)));
    // The next edit replaces it.
    policy.targets_mut().note_edit(None);
    assert!(!policy.targets().is_set_aside());
}
