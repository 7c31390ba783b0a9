//! Names of objects: valid in Kubernetes, readable, and the same at every export.

use std::collections::{BTreeMap, BTreeSet};

/// The longest name that is valid as a label's value and as a file name everywhere too.
const MAX_LENGTH: usize = 63;

/// Names for these things: what each is called, and an id that no other one has. Two that would
/// bear the same name both get their id, so that neither depends on the order.
pub(super) fn names(things: &[(String, String)]) -> Vec<String> {
    let desired: Vec<String> = things.iter().map(|(called, _)| dns_label(called)).collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &desired {
        *count.entry(name).or_default() += 1;
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut names: Vec<String> = Vec::new();
    for (name, (_, id)) in desired.iter().zip(things) {
        let mut chosen = if name.is_empty() {
            with_suffix("device", id)
        } else if count[name.as_str()] > 1 {
            with_suffix(name, id)
        } else {
            name.clone()
        };
        // Ids may differ in case alone, and a name may look like one with an id.
        let mut number = 1;
        while !taken.insert(chosen.clone()) {
            number += 1;
            chosen = with_suffix(name, &format!("{id}-{number}"));
        }
        names.push(chosen);
    }
    names
}

fn with_suffix(name: &str, id: &str) -> String {
    let id = dns_label(id);
    let room = MAX_LENGTH.saturating_sub(id.len() + 1);
    let name: String = name.chars().take(room).collect();
    dns_label(&format!("{name}-{id}"))
}

/// A label of DNS as RFC 1123 has it: what else there is becomes a dash.
fn dns_label(text: &str) -> String {
    let letters = text
        .chars()
        .map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => letter,
            _ => '-',
        });
    let mut label = String::new();
    for letter in letters {
        if label.len() < MAX_LENGTH
            && !(letter == '-' && (label.is_empty() || label.ends_with('-')))
        {
            label.push(letter);
        }
    }
    label.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn named(things: &[(&str, &str)]) -> Vec<String> {
        let things: Vec<_> = things
            .iter()
            .map(|(called, id)| ((*called).to_owned(), (*id).to_owned()))
            .collect();
        names(&things)
    }

    #[test]
    fn a_name_is_that_of_the_device_and_bears_its_id_only_where_two_are_alike() {
        let things = [
            ("fra-router", "n1CNTRL"),
            ("Web_1", "n2CNTRL"),
            ("web-1", "n3CNTRL"),
        ];
        let expected = ["fra-router", "web-1-n2cntrl", "web-1-n3cntrl"];
        assert_eq!(named(&things), expected);
        assert_eq!(named(&[("日本", "n4CNTRL")]), ["device-n4cntrl"]);
    }

    proptest! {
        #[test]
        fn names_are_valid_and_no_two_are_alike(
            called in collection::vec("[a-bA-B_.é-]{0,4}|[a-z]{70}", 1..12),
        ) {
            let things: Vec<_> = called
                .into_iter()
                .enumerate()
                .map(|(number, called)| (called, format!("n{number}CNTRL")))
                .collect();
            let mut names = names(&things);
            for name in &names {
                prop_assert!(!name.is_empty() && name.len() <= MAX_LENGTH, "{}", name);
                prop_assert!(!name.starts_with('-') && !name.ends_with('-'), "{}", name);
                let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                prop_assert!(name.bytes().all(valid), "{}", name);
            }
            let count = names.len();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), count);
        }
    }
}
