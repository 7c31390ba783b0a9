//! Names of objects: valid in Kubernetes, readable, and stable from one export to the next.

use std::collections::{BTreeMap, BTreeSet};

/// A name of this length is also valid as the value of a label and as a file name.
const MAX_LENGTH: usize = 63;

/// Chooses a name for each pair of a preferred name and a unique id. If two would get the same name,
/// both get their id as a suffix, so that neither name depends on the order.
pub(super) fn names(names_and_ids: &[(String, String)]) -> Vec<String> {
    let preferred: Vec<String> = names_and_ids
        .iter()
        .map(|(name, _)| dns_label(name))
        .collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &preferred {
        *count.entry(name).or_default() += 1;
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut names: Vec<String> = Vec::new();
    for (name, (_, id)) in preferred.iter().zip(names_and_ids) {
        let mut chosen = if name.is_empty() {
            with_suffix("device", id)
        } else if count[name.as_str()] > 1 {
            with_suffix(name, id)
        } else {
            name.clone()
        };
        // Two ids can differ in case only, and a name can look like one with an id.
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
    // Cuts the name and never the id, which makes it unique.
    let length = MAX_LENGTH.saturating_sub(id.len() + 1);
    let name: String = name.chars().take(length).collect();
    // Once more, as the cut can leave a dash at the end of the name.
    dns_label(&format!("{name}-{id}"))
}

/// A DNS label according to RFC 1123. Each other character becomes a dash.
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
    fn a_name_has_the_id_as_a_suffix_only_if_two_devices_would_share_it() {
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
        fn names_are_valid_and_unique(
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
