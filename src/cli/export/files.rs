//! Which file describes a device: one for each set of tags and for each user.
//!
//! That depends on what devices are and not on how they are set, so that drift of a device changes one file. If
//! there would be too many files, users share one for each operating system, and small groups share files.

use std::collections::{BTreeMap, BTreeSet};

use super::description::{Facts, Id};
use crate::model::{TagSet, folded};

/// What the devices of a file have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKey {
    /// Their tags. A device whose tags nobody else has is described beside the devices that it is closest to.
    Tags(TagSet),
    /// Their user.
    User(String),
    /// They belong to users, and have the same operating system.
    Os(String),
    /// One resource of Terraform sets them.
    Resource(String),
    /// It is one device.
    Device(Id),
    /// There would be too many files otherwise.
    Others,
}

impl FileKey {
    /// The preferred name of the file.
    pub fn name(&self) -> String {
        match self {
            Self::Tags(tags) => tags_name(tags),
            Self::User(login) => {
                format!("user-{}", login.split('@').next().unwrap_or_default())
            }
            Self::Os(os) => format!("os-{os}"),
            Self::Resource(name) => name.clone(),
            Self::Device(id) => id.as_str().to_owned(),
            Self::Others => "other-devices".to_owned(),
        }
    }
}

/// `tag-fra-router`, for tag:fra and tag:router.
pub(super) fn tags_name(tags: &TagSet) -> String {
    let names = tags
        .iter()
        .map(|tag| tag.as_str().trim_start_matches("tag:"));
    format!("tag-{}", names.collect::<Vec<_>>().join("-"))
}

/// A device that may need a file.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub id: Id,
    pub label: String,
    pub facts: Facts,
}

/// The groups of a tailnet's devices.
#[derive(Debug)]
pub(super) struct Files {
    /// The labels of the devices with exactly these tags, if there are two or more.
    by_tags: BTreeMap<TagSet, BTreeSet<String>>,
    /// The users, operating systems and resources of two devices or more.
    users: BTreeSet<String>,
    systems: BTreeSet<String>,
    resources: BTreeSet<String>,
    untagged_by_os: bool,
    /// The files that there are; `None`: as many as there are groups.
    kept: Option<BTreeSet<FileKey>>,
}

/// The most files: one for 25 devices, and some for a small tailnet.
fn max_files(devices: usize) -> usize {
    (devices / 25).max(40)
}

impl Files {
    /// Chooses the files for the devices that are described. `all` are those that could be.
    pub fn new(all: &[Candidate], described: &[Candidate]) -> Self {
        let mut by_tags: BTreeMap<TagSet, BTreeSet<String>> = BTreeMap::new();
        let (mut users, mut systems) = (Vec::new(), Vec::new());
        let mut resources = Vec::new();
        for Candidate { facts, label, .. } in all.iter().filter(|one| !one.facts.is_uncertain) {
            if facts.tags.is_empty() {
                users.push(facts.user.clone());
                systems.push(folded(&facts.os));
                resources.push(facts.resource.clone());
            } else {
                let labels = by_tags.entry(facts.tags.clone()).or_default();
                labels.insert(label.clone());
            }
        }
        by_tags.retain(|_, labels| labels.len() > 1);
        let mut files = Self {
            by_tags,
            users: repeated(users),
            systems: repeated(systems),
            resources: repeated(resources),
            untagged_by_os: false,
            kept: None,
        };
        files.limit(max_files(all.len()), described);
        files
    }

    fn limit(&mut self, max: usize, described: &[Candidate]) {
        let mut count = self.count(described);
        if count.len() <= max {
            return;
        }
        self.untagged_by_os = true;
        count = self.count(described);
        if count.len() <= max {
            return;
        }
        let mut largest: Vec<(FileKey, usize)> = count.into_iter().collect();
        // Stable, so that files of the same size are kept by their key.
        largest.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
        // One is for all others.
        largest.truncate(max - 1);
        let kept: BTreeSet<FileKey> = largest.into_iter().map(|(key, _)| key).collect();
        self.by_tags
            .retain(|tags, _| kept.contains(&FileKey::Tags(tags.clone())));
        self.kept = Some(kept);
    }

    fn count(&self, described: &[Candidate]) -> BTreeMap<FileKey, usize> {
        let mut count = BTreeMap::new();
        for one in described {
            *count.entry(self.of(one)).or_default() += 1;
        }
        count
    }

    /// The file of a device.
    pub fn of(&self, one: &Candidate) -> FileKey {
        let key = self.preferred(one);
        match &self.kept {
            Some(kept) if !kept.contains(&key) => FileKey::Others,
            _ => key,
        }
    }

    fn preferred(&self, one: &Candidate) -> FileKey {
        let Facts {
            tags,
            user,
            os,
            resource,
            ..
        } = &one.facts;
        let alone = || FileKey::Device(one.id.clone());
        if one.facts.is_uncertain {
            return alone();
        }
        if !tags.is_empty() {
            if self.by_tags.contains_key(tags) {
                return FileKey::Tags(tags.clone());
            }
            return self.closest(one).map_or_else(alone, FileKey::Tags);
        }
        let os = folded(os);
        if self.untagged_by_os && self.systems.contains(&os) {
            FileKey::Os(os)
        } else if !self.untagged_by_os && self.users.contains(user) {
            FileKey::User(user.clone())
        } else if self.resources.contains(resource) {
            FileKey::Resource(resource.clone())
        } else {
            alone()
        }
    }

    /// The tags of other devices that have all of its tags, or of which it has all: a device that gained or lost
    /// a tag stays where it was.
    fn closest(&self, one: &Candidate) -> Option<TagSet> {
        let tags = &one.facts.tags;
        let related = self.by_tags.iter().filter(|(others, _)| {
            if self.kept.is_some() {
                !others.is_disjoint(tags)
            } else {
                others.is_subset(tags) || tags.is_subset(others)
            }
        });
        let closest = related.max_by_key(|(others, labels)| {
            let shared = others.intersection(tags).count();
            let different = others.symmetric_difference(tags).count();
            // fra-router-2 is beside fra-router-1.
            let alike = longest_common_prefix(labels, &one.label);
            (shared, std::cmp::Reverse(different), alike, labels.len())
        });
        closest.map(|(others, _)| others.clone())
    }
}

/// The texts that occur more than once, without the empty one.
fn repeated(mut texts: Vec<String>) -> BTreeSet<String> {
    texts.sort();
    let pairs = texts.windows(2).filter(|pair| pair[0] == pair[1]);
    let repeated = pairs.map(|pair| pair[0].clone());
    repeated.filter(|text| !text.is_empty()).collect()
}

/// The number of bytes that a text has in common with the start of any other one.
fn longest_common_prefix(texts: &BTreeSet<String>, text: &str) -> usize {
    let common = |other: &String| {
        let pairs = other.bytes().zip(text.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    // In the order of texts, the longest is at a neighbor.
    let place = text.to_owned();
    let before = texts.range(..place.clone()).next_back().map(common);
    let after = texts.range(place..).next().map(common);
    before.max(after).unwrap_or_default()
}
