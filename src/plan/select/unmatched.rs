//! Why a selector matches nothing: the criteria that no device meets.

use std::{collections::BTreeMap, fmt};

use super::{Glob, Selector};
use crate::model::{Device, folded, nearest};

/// A criterion of a selector that no device meets by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let lists = [
            ("a tag like", texts(&selector.tag_patterns), &known.tags),
            ("a user like", texts(&selector.users), &known.users),
            (
                "a hostname like",
                texts(&selector.hostnames),
                &known.hostnames,
            ),
            (
                "the OS",
                selector.os.iter().map(|os| folded(os)).collect(),
                &known.os,
            ),
        ]
        .into_iter()
        .filter_map(|(what, wanted, known)| {
            let first = wanted.first()?;
            let is_met = wanted.iter().any(|text| {
                let glob = Glob::new(text);
                known.keys().any(|known| glob.matches(known))
            });
            (!is_met).then(|| Self::new(format!("{what} {}", wanted.join(" or ")), first, known))
        });
        tags.chain(lists).collect()
    }

    fn new(criterion: String, word: &str, known: &BTreeMap<String, usize>) -> Self {
        let near = nearest(word, known.keys().map(String::as_str));
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

fn texts(globs: &[Glob]) -> Vec<String> {
    globs.iter().map(ToString::to_string).collect()
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
        // A machine chooses its hostname and OS: other characters do not get into a message. Tags need no
        // check, as the control server accepts only valid ones.
        for texts in [&mut known.users, &mut known.hostnames, &mut known.os] {
            texts.retain(|text, _| {
                let mut letters = text.chars();
                letters.all(|letter| letter.is_alphanumeric() || "-_.@+".contains(letter))
            });
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
