//! Why a selector matches nothing: the criteria that no device meets.

use std::{collections::BTreeMap, fmt};

use super::Selector;
use crate::model::{Device, folded, nearest};

/// A criterion of a selector that no device meets by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unmatched {
    criterion: String,
    /// What was probably meant, and how many devices have it.
    near: Option<(String, usize)>,
}

impl Unmatched {
    /// The criteria of a selector that none of these devices meets, in the order of the spec. Empty: each one
    /// is met by a device, but all together by none.
    pub fn of<'d>(selector: &Selector, devices: impl Iterator<Item = &'d Device>) -> Vec<Self> {
        let known = Known::of(devices);
        let tags = selector.tags.iter().filter_map(|tag| {
            let tag = tag.as_str();
            (!known.tags.contains_key(tag)).then(|| Self::new(tag.to_owned(), tag, &known.tags))
        });
        let patterns = [
            ("a tag like", &selector.tag_patterns, &known.tags),
            ("a user like", &selector.users, &known.users),
            ("a hostname like", &selector.hostnames, &known.hostnames),
        ]
        .into_iter()
        .filter_map(|(what, globs, known)| {
            let mut globs_met = globs
                .iter()
                .filter(|glob| known.keys().any(|known| glob.matches(known)));
            let texts: Vec<String> = globs.iter().map(ToString::to_string).collect();
            globs_met
                .next()
                .is_none()
                .then(|| Self::of_list(what, &texts, known))?
        });
        // Names, not patterns: `*` is no operating system.
        let names: Vec<String> = selector.os.iter().map(|os| folded(os)).collect();
        let has_any = names.iter().any(|os| known.os.contains_key(os));
        let os = (!has_any).then(|| Self::of_list("the OS", &names, &known.os));
        tags.chain(patterns).chain(os.flatten()).collect()
    }

    /// Values of which no device has one; `None` if there are none.
    fn of_list(what: &str, wanted: &[String], known: &BTreeMap<String, usize>) -> Option<Self> {
        let first = wanted.first()?;
        let criterion = format!("{what} {}", wanted.join(" or "));
        Some(Self::new(criterion, first, known))
    }

    fn new(criterion: String, word: &str, known: &BTreeMap<String, usize>) -> Self {
        // A machine chooses its hostname and OS: other characters do not get into a message. Tags need no
        // check, as the control server accepts only valid ones.
        let printable = known.keys().map(String::as_str).filter(|text| {
            let mut letters = text.chars();
            letters.all(|letter| letter.is_alphanumeric() || "-_.@+:".contains(letter))
        });
        let near = nearest(word, printable);
        let near = near.and_then(|near| Some((near.to_owned(), *known.get(near)?)));
        Self { criterion, near }
    }
}

impl fmt::Display for Unmatched {
    /// `no device has tag:servers; did you mean tag:server (75 devices)?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no device has {}", self.criterion)?;
        match &self.near {
            None => Ok(()),
            Some((near, 1)) => write!(f, "; did you mean {near} (1 device)?"),
            Some((near, count)) => write!(f, "; did you mean {near} ({count} devices)?"),
        }
    }
}

/// What devices have, and how many of them.
#[derive(Default)]
struct Known {
    tags: BTreeMap<String, usize>,
    users: BTreeMap<String, usize>,
    hostnames: BTreeMap<String, usize>,
    os: BTreeMap<String, usize>,
}

impl Known {
    fn of<'d>(devices: impl Iterator<Item = &'d Device>) -> Self {
        let mut known = Self::default();
        // A selector never matches an external device, so that a suggestion must not rest on one.
        for device in devices.filter(|device| !device.external) {
            for tag in &device.tags {
                *known.tags.entry(tag.as_str().to_owned()).or_default() += 1;
            }
            // A tagged device has no user.
            if device.tags.is_empty() {
                *known.users.entry(device.user.clone()).or_default() += 1;
            }
            *known.hostnames.entry(folded(&device.hostname)).or_default() += 1;
            *known.os.entry(folded(&device.os)).or_default() += 1;
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::NodeId, plan::Glob};

    fn device(number: usize, tags: &[&str]) -> Device {
        let id: NodeId = format!("n{number}CNTRL").parse().unwrap();
        Device {
            hostname: format!("Web-{number}"),
            user: "amelie@example.com".to_owned(),
            os: "linux".to_owned(),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            ..Device::plain(id)
        }
    }

    fn unmatched(selector: &Selector) -> Vec<String> {
        let devices = [
            device(1, &["tag:server"]),
            device(2, &["tag:server"]),
            device(3, &[]),
        ];
        let unmatched = Unmatched::of(selector, devices.iter());
        unmatched.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_criterion_that_no_device_meets_is_named_with_the_nearest() {
        let tag = Selector {
            tags: ["tag:servers".parse().unwrap()].into(),
            ..Selector::default()
        };
        let expected = "no device has tag:servers; did you mean tag:server (2 devices)?";
        assert_eq!(unmatched(&tag), [expected]);
        let others = Selector {
            users: vec![Glob::new("amelei@example.com")],
            hostnames: vec![Glob::of_folded("db-*")],
            os: vec!["Windows".to_owned()],
            ..Selector::default()
        };
        assert_eq!(
            unmatched(&others),
            [
                "no device has a user like amelei@example.com; did you mean amelie@example.com (1 device)?",
                "no device has a hostname like db-*",
                "no device has the OS windows",
            ]
        );
    }

    #[test]
    fn an_os_is_a_name_and_no_pattern() {
        let any = Selector {
            os: vec!["*".to_owned()],
            ..Selector::default()
        };
        assert_eq!(unmatched(&any), ["no device has the OS *"]);
    }

    /// A text that a message must not quote can still meet a criterion.
    #[test]
    fn a_criterion_is_met_by_a_text_of_any_letters() {
        let odd = Device {
            os: "Plan 9".to_owned(),
            user: "o'brien@example.com".to_owned(),
            hostname: "odd one".to_owned(),
            ..device(1, &[])
        };
        let of_odd = |os: &str, user: &str, hostname: &str| {
            let selector = Selector {
                os: vec![os.to_owned()],
                users: vec![Glob::new(user)],
                hostnames: vec![Glob::of_folded(hostname)],
                ..Selector::default()
            };
            let unmatched = Unmatched::of(&selector, [&odd].into_iter());
            unmatched
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert!(of_odd("plan 9", "o'brien@*", "odd *").is_empty());
        // Near enough, and not quoted.
        let unmet = of_odd("plan 8", "o'brian@example.com", "odd two");
        assert_eq!(
            unmet,
            [
                "no device has a user like o'brian@example.com",
                "no device has a hostname like odd two",
                "no device has the OS plan 8",
            ]
        );
    }

    #[test]
    fn criteria_that_different_devices_meet_are_not_named() {
        let both = Selector {
            tags: ["tag:server".parse().unwrap()].into(),
            users: vec![Glob::new("*@example.com")],
            hostnames: vec![Glob::of_folded("WEB-*")],
            os: vec!["Linux".to_owned()],
            ..Selector::default()
        };
        assert!(unmatched(&both).is_empty());
    }
}
