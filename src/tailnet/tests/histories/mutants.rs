//! Whether the histories would notice: each deliberate fault of the engine makes one of them fail.

use super::{
    ALL, actions, leaders, owned_keys, random, releases,
    run::{History, print_line},
    short_lists, shrink,
};
use crate::tailnet::mutants::{Mutant, switch};

/// So many seeds of all histories find each fault.
const SEEDS: u64 = 2000;

const MUTANTS: [Mutant; 12] = [
    Mutant::UnknownIsEmpty,
    Mutant::LostAnswerIsFailure,
    Mutant::RequestBeforeRecord,
    Mutant::SnapshotIsNotUpdated,
    Mutant::ApprovalWorksTwice,
    Mutant::LeadershipIsNotChecked,
    Mutant::ListEndsBackoffs,
    Mutant::ReasonsAreNotCheckedAgain,
    Mutant::RecordsOutliveTheirTerm,
    Mutant::KeysAreOwnedByPolicy,
    Mutant::OneListProvesAbsence,
    Mutant::NothingIsReserved,
];

/// How a history fails with a fault, if it does.
fn failure(mutant: Mutant, history: &History, seed: u64) -> Option<String> {
    switch(Some(mutant));
    let result = shrink::run(history, seed);
    switch(None);
    result.err().map(|failed| failed.to_string())
}

/// A history finds a fault with one of a few seeds from this one on, and with none of them without the fault.
fn assert_found(mutant: Mutant, history: &History, first: u64) {
    let mut seeds = first..first + 20;
    let found = seeds.find(|seed| failure(mutant, history, *seed).is_some());
    let seed = found.unwrap_or_else(|| panic!("{} does not find {mutant:?}", history.name));
    assert!(
        shrink::run(history, seed).is_ok(),
        "seed {seed} fails without {mutant:?}"
    );
}

#[test]
fn it_is_found_if_what_is_unknown_counts_as_empty() {
    assert_found(Mutant::UnknownIsEmpty, &short_lists::HISTORY, 1);
}

#[test]
fn it_is_found_if_a_lost_answer_counts_as_a_failure() {
    assert_found(Mutant::LostAnswerIsFailure, &releases::HISTORY, 0);
}

#[test]
fn it_is_found_if_a_request_precedes_its_record() {
    assert_found(Mutant::RequestBeforeRecord, &actions::HISTORY, 0);
}

#[test]
fn it_is_found_if_a_write_does_not_change_the_snapshot() {
    assert_found(Mutant::SnapshotIsNotUpdated, &random::HISTORY, 0);
}

#[test]
fn it_is_found_if_an_approval_works_twice() {
    assert_found(Mutant::ApprovalWorksTwice, &random::HISTORY, 85);
}

#[test]
fn it_is_found_if_leadership_is_not_checked() {
    assert_found(Mutant::LeadershipIsNotChecked, &random::HISTORY, 1);
}

#[test]
fn it_is_found_if_a_list_ends_backoffs() {
    assert_found(Mutant::ListEndsBackoffs, &random::HISTORY, 0);
}

#[test]
fn it_is_found_if_reasons_are_not_checked_again() {
    assert_found(Mutant::ReasonsAreNotCheckedAgain, &random::HISTORY, 0);
}

#[test]
fn it_is_found_if_records_outlive_their_term() {
    assert_found(Mutant::RecordsOutliveTheirTerm, &leaders::HISTORY, 4);
}

#[test]
fn it_is_found_if_keys_are_owned_by_policy() {
    assert_found(Mutant::KeysAreOwnedByPolicy, &owned_keys::HISTORY, 2);
}

#[test]
fn it_is_found_if_one_list_proves_absence() {
    assert_found(Mutant::OneListProvesAbsence, &short_lists::HISTORY, 0);
}

#[test]
fn it_is_found_if_nothing_is_reserved() {
    assert_found(Mutant::NothingIsReserved, &releases::HISTORY, 0);
}

/// Prints which seed of which history finds each fault first.
#[test]
#[ignore = "takes minutes"]
fn each_mutant_is_found_within_2000_seeds() {
    let mut missed = Vec::new();
    for mutant in MUTANTS {
        let mut runs = (0..SEEDS).flat_map(|seed| ALL.iter().map(move |history| (history, seed)));
        let found = runs.find_map(|(history, seed)| {
            let failure = failure(mutant, history, seed)?;
            Some(format!("{} with seed {seed}: {failure}", history.name))
        });
        match found {
            Some(found) => print_line(&format!("{mutant:?}: {found}")),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "no history finds {missed:?}");
}
