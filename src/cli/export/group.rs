//! From described devices to policies: shared ones for what devices have in common, and one for each device that
//! has more.
//!
//! A shared policy names its devices one by one. A selector by tags would also match a device that joins tomorrow
//! with the same tags and other settings, and change it.

use std::collections::BTreeMap;

use super::{
    description::{Description, Id},
    files::{Candidate, FileKey, Files, tags_name},
    names::names,
    settings::{One, Settings},
    shares,
};
use crate::{
    api::{DeviceSelector, TailscaleDevicePolicySpec as Spec},
    model::{TagSet, counted},
};

/// A policy to write.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub name: String,
    /// The devices that it targets, and the settings that it cannot declare.
    pub comments: Vec<String>,
    pub spec: Spec,
}

/// A file to write.
#[derive(Debug, Clone)]
pub(super) struct ManifestFile {
    pub name: String,
    pub manifests: Vec<Manifest>,
}

/// A policy without its final name.
struct Draft {
    preferred: String,
    id: String,
    comments: Vec<String>,
    spec: Spec,
}

/// A device with the settings that no shared policy declares yet.
struct Member {
    description: Description,
    rest: Settings,
}

/// A file and a policy for each device.
pub(super) fn one_each(descriptions: Vec<Description>) -> Vec<ManifestFile> {
    let single = |description: Description| {
        let name = description.label.clone();
        let id = description.id.as_str().to_owned();
        let drafts = vec![single(&description, description.desired.clone())];
        ((name, id), drafts)
    };
    let (names_and_ids, drafts): (Vec<_>, Vec<_>) = descriptions.into_iter().map(single).unzip();
    named(names(&names_and_ids), drafts)
}

/// Files by tags and by user, with policies that devices share.
///
/// `all` are all devices that could be described: they decide which files there are.
pub(super) fn shared(
    descriptions: Vec<Description>,
    all: &[Candidate],
) -> Result<Vec<ManifestFile>, serde_json::Error> {
    let candidates: Vec<Candidate> = descriptions.iter().map(Candidate::of).collect();
    let files = Files::new(all, &candidates);
    let mut members: BTreeMap<FileKey, Vec<Description>> = BTreeMap::new();
    for (candidate, description) in candidates.iter().zip(descriptions) {
        let of_file = members.entry(files.of(candidate)).or_default();
        of_file.push(description);
    }
    let preferred = members
        .iter()
        .map(|(key, members)| match (key, members.first()) {
            (FileKey::Device(id), Some(only)) => (only.label.clone(), id.as_str().to_owned()),
            (key, _) => (key.name(), shares::hex(&format!("{key:?}"))),
        });
    // The name of a file first: its policies are named after it, whatever other files have.
    let file_names = names(&preferred.collect::<Vec<_>>());
    let mut drafts = Vec::new();
    for ((key, descriptions), name) in members.into_iter().zip(&file_names) {
        drafts.push(file(&key, name, descriptions)?);
    }
    Ok(named(file_names, drafts))
}

impl Candidate {
    pub fn of(description: &Description) -> Self {
        Self {
            id: description.id.clone(),
            label: description.label.clone(),
            facts: description.facts.clone(),
        }
    }
}

/// The policies of one file: first those of devices with the same tags, then each device with something of its own.
fn file(
    key: &FileKey,
    name: &str,
    descriptions: Vec<Description>,
) -> Result<Vec<Draft>, serde_json::Error> {
    let mut parts: BTreeMap<TagSet, Vec<Member>> = BTreeMap::new();
    for description in descriptions {
        let rest = Settings::of(&description.desired)?;
        let part = parts.entry(description.facts.tags.clone()).or_default();
        part.push(Member { description, rest });
    }
    let (mut drafts, mut singles) = (Vec::new(), Vec::new());
    for (tags, mut members) in parts {
        // The same tailnet must give the same files, whatever the order of its list.
        members.sort_by_cached_key(|it| (it.description.label.clone(), it.description.id.clone()));
        let is_other = !tags.is_empty() && *key != FileKey::Tags(tags.clone());
        let name = if is_other {
            tags_name(&tags)
        } else {
            name.to_owned()
        };
        share(&name, &mut members, &mut drafts)?;
        for member in members {
            if !member.rest.is_empty() {
                singles.push(single(&member.description, member.rest.spec()?));
            }
        }
    }
    // After the shared ones, so that a reader meets what most devices have first.
    singles.sort_by(|a, b| a.preferred.cmp(&b.preferred));
    drafts.extend(singles);
    Ok(drafts)
}

/// Takes what several members have in common out of them, into shared policies.
fn share(
    name: &str,
    members: &mut [Member],
    drafts: &mut Vec<Draft>,
) -> Result<(), serde_json::Error> {
    let common = common(members);
    if !common.is_empty() {
        draft(
            name,
            &common,
            members,
            |member| common.is_subset(&member.rest),
            drafts,
        )?;
    }
    let mut alike: BTreeMap<Settings, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| can_share(member)) {
        if !member.rest.is_empty() && member.rest.is_shareable() {
            *alike.entry(member.rest.clone()).or_default() += 1;
        }
    }
    // Two devices are enough: what they share is written once.
    for (settings, _) in alike.into_iter().filter(|(_, count)| *count > 1) {
        let name = format!("{name}-{}", settings.words());
        draft(&name, &settings, members, |it| it.rest == settings, drafts)?;
    }
    Ok(())
}

/// No expression can name an older id, and what is unknown of a device is not shared.
fn can_share(member: &Member) -> bool {
    matches!(member.description.id, Id::Node(_)) && !member.description.facts.is_uncertain
}

/// The settings that more than half of the members have together, those of most members first.
fn common(members: &[Member]) -> Settings {
    let able: Vec<&Member> = members.iter().filter(|member| can_share(member)).collect();
    let mut count: BTreeMap<One, usize> = BTreeMap::new();
    for member in &able {
        for one in member.rest.shareable() {
            *count.entry(one).or_default() += 1;
        }
    }
    let mut frequent: Vec<(One, usize)> = count.into_iter().collect();
    // The most frequent first: a rare one would leave few devices for the others.
    frequent.sort_by_key(|(_, devices)| std::cmp::Reverse(*devices));
    let mut common = Settings::default();
    let mut holders = able.clone();
    for (one, _) in frequent {
        let having: Vec<&Member> = holders
            .iter()
            .filter(|member| member.rest.has(&one))
            .copied()
            .collect();
        // More than half: else several policies would share fewer devices each, and be longer together.
        if having.len() > 1 && having.len() * 2 > able.len() {
            common.insert(one);
            holders = having;
        }
    }
    common
}

/// Adds policies for settings that certain members have. A large group takes several.
fn draft(
    name: &str,
    settings: &Settings,
    members: &mut [Member],
    is_holder: impl Fn(&Member) -> bool,
    drafts: &mut Vec<Draft>,
) -> Result<(), serde_json::Error> {
    let able = members.iter_mut().filter(|member| can_share(member));
    let mut holders: Vec<&mut Member> = able.filter(|member| is_holder(member)).collect();
    for holder in &mut holders {
        // A setting has one policy, or two of them would own it.
        holder.rest.subtract(settings);
    }
    let ids = |holders: &[&mut Member]| -> Vec<String> {
        let ids = holders
            .iter()
            .map(|it| it.description.id.as_str().to_owned());
        ids.collect()
    };
    for share in shares::split(holders, |it| it.description.id.as_str().to_owned()) {
        let devices = share.members;
        let names = devices.iter().map(|it| it.description.label.as_str());
        let mut comments = vec![counted(devices.len(), "device") + ":"];
        comments.extend(wrapped(names));
        for device in devices.iter().filter(|it| it.rest.is_empty()) {
            let label = &device.description.label;
            let gaps = device.description.gaps.iter();
            comments.extend(gaps.map(|gap| format!("Not declared: {label}: {gap}")));
        }
        let selector = DeviceSelector {
            expression: Some(shares::expression(&ids(&devices))),
            // The schema requires it of a selector without tags and users. A nodeId is no claim.
            trust_claims: Some(true),
            ..DeviceSelector::default()
        };
        drafts.push(Draft {
            // An expression has a maximum length, so a large group takes several policies.
            preferred: name.to_owned() + &share.suffix,
            id: shares::hex(&settings.text()),
            comments,
            spec: Spec {
                device_selector: Some(selector),
                ..settings.spec()?
            },
        });
    }
    Ok(())
}

fn single(description: &Description, desired: Spec) -> Draft {
    let mut comments = vec![description.title.clone()];
    let gaps = description.gaps.iter();
    comments.extend(gaps.map(|gap| format!("Not declared: {gap}")));
    Draft {
        preferred: description.label.clone(),
        id: description.id.as_str().to_owned(),
        comments,
        spec: Spec {
            device: Some(description.id.reference()),
            ..desired
        },
    }
}

/// A list in lines of a readable length.
fn wrapped<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const MAX_LENGTH: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        match lines.last_mut() {
            Some(line) if line.len() + name.len() < MAX_LENGTH => {
                *line += ", ";
                *line += name;
            }
            _ => lines.push(format!("  {name}")),
        }
    }
    lines
}

/// Gives each policy its name.
fn named(file_names: Vec<String>, drafts: Vec<Vec<Draft>>) -> Vec<ManifestFile> {
    let preferred = drafts
        .iter()
        .flatten()
        .map(|draft| (draft.preferred.clone(), draft.id.clone()));
    let mut policy_names = names(&preferred.collect::<Vec<_>>()).into_iter();
    let mut files = Vec::new();
    for (name, drafts) in file_names.into_iter().zip(drafts) {
        let manifests = drafts
            .into_iter()
            .zip(&mut policy_names)
            .map(|(draft, name)| Manifest {
                name,
                comments: draft.comments,
                spec: draft.spec,
            });
        files.push(ManifestFile {
            name,
            manifests: manifests.collect(),
        });
    }
    // By name, so that a stream and a folder have the same order.
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}
