//! Files of an export, over those of an earlier one. A file that someone else wrote or edited is never lost.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;

use super::{shares, text};
use crate::{api::TailscaleDevicePolicy, cli::manifests::is_manifest};

/// The start of each file that an export writes.
pub(super) const WRITTEN_BY: &str = "Written by: tsdp export";
const DIGEST: &str = "# Digest: ";

/// What this export knows about devices that earlier files describe.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The devices that this export describes, or has found nothing to declare of.
    pub exported: BTreeSet<String>,
    /// All devices of the tailnet; `None` if the export does not know all of them.
    pub tailnet: Option<BTreeSet<String>>,
}

/// What happened to files that this export does not write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Removed: of an earlier export, and nobody has edited them.
    pub removed: Vec<PathBuf>,
    /// Still there, although they describe devices that this export describes too, or that have left.
    pub kept: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error(
        "these files exist with other content, so nothing was written: {}. Choose another place, or add --force \
         to overwrite them",
        .0.join(", ")
    )]
    Exists(Vec<String>),
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot remove {}: {}", .0.display(), .1)]
    Remove(PathBuf, #[source] io::Error),
}

/// A text with a digest of itself, by which a later export recognizes an edit.
pub(super) fn sealed(header: &str, body: &str) -> String {
    let digest = digest(&[header, body].concat());
    let seal = "The next export replaces this file only if nobody has edited it.";
    format!("{header}{DIGEST}{digest}. {seal}\n{body}")
}

fn digest(text: &str) -> String {
    // Git may have changed the ends of the lines.
    shares::hex(&text.replace('\r', ""))
}

/// Whether an export wrote the text, and nobody has edited it since.
fn is_untouched(written: &str) -> bool {
    let mut sealed = None;
    let mut rest = String::new();
    for line in written.split_inclusive('\n') {
        match line.strip_prefix(DIGEST) {
            Some(seal) if sealed.is_none() => sealed = seal.split('.').next(),
            _ => rest += line,
        }
    }
    is_of_an_export(written) && sealed == Some(digest(&rest).as_str())
}

fn is_of_an_export(written: &str) -> bool {
    written.starts_with(text::comment(WRITTEN_BY).trim_end())
}

/// Writes files into a folder, none of them if any would overwrite what someone else wrote. Then removes the files
/// of an earlier export that describe nothing else.
pub(super) fn write(
    folder: &Path,
    files: &[(String, String)],
    scope: &Scope,
    force: bool,
) -> Result<Earlier, FolderError> {
    let files: Vec<(PathBuf, &str)> = files
        .iter()
        .map(|(name, text)| (folder.join(name), text.as_str()))
        .collect();
    let changed = changed(&files, force)?;
    fs::create_dir_all(folder).map_err(|error| FolderError::Write(folder.to_owned(), error))?;
    write_all(&changed)?;
    let written: BTreeSet<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
    let earlier = earlier(folder, &written, scope)?;
    for path in &earlier.removed {
        fs::remove_file(path).map_err(|error| FolderError::Remove(path.clone(), error))?;
    }
    Ok(earlier)
}

/// Writes one file.
pub(super) fn write_file(path: &Path, text: &str, force: bool) -> Result<(), FolderError> {
    write_all(&changed(&[(path.to_owned(), text)], force)?)
}

fn write_all(files: &[&(PathBuf, &str)]) -> Result<(), FolderError> {
    for (path, text) in files {
        fs::write(path, text).map_err(|error| FolderError::Write(path.clone(), error))?;
    }
    Ok(())
}

/// The files whose content changes. An error if someone else wrote any of them.
fn changed<'a, 't>(
    files: &'a [(PathBuf, &'t str)],
    force: bool,
) -> Result<Vec<&'a (PathBuf, &'t str)>, FolderError> {
    let mut changed = Vec::new();
    let mut foreign = Vec::new();
    for file in files {
        let (path, text) = file;
        match fs::read_to_string(path) {
            // A repeated export touches no file that is up to date.
            Ok(existing) if existing == *text => continue,
            Ok(existing) if is_untouched(&existing) => {}
            Ok(_) => foreign.push(path.display().to_string()),
            // A link to nothing is not found either, although it is there.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && fs::symlink_metadata(path).is_err() => {}
            Err(error) => foreign.push(format!("{} (cannot be read: {error})", path.display())),
        }
        changed.push(file);
    }
    if foreign.is_empty() || force {
        Ok(changed)
    } else {
        Err(FolderError::Exists(foreign))
    }
}

/// The files of an earlier export that this one does not write.
fn earlier(
    folder: &Path,
    written: &BTreeSet<&Path>,
    scope: &Scope,
) -> Result<Earlier, FolderError> {
    let unread = |error| FolderError::Read(folder.to_owned(), error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        paths.push(entry.map_err(unread)?.path());
    }
    paths.sort();
    let mut earlier = Earlier::default();
    for path in paths {
        if !is_manifest(&path) || written.contains(path.as_path()) {
            continue;
        }
        // A file that cannot be read is none of ours, as far as anyone can tell.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if !is_of_an_export(&text) {
            continue;
        }
        match scope.of(&text) {
            Overlap::None => {}
            Overlap::Whole if is_untouched(&text) => earlier.removed.push(path),
            Overlap::Whole | Overlap::Part => earlier.kept.push(path),
        }
    }
    Ok(earlier)
}

/// How much of a file this export takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    None,
    /// It also describes devices that are in the tailnet and were not exported.
    Part,
    Whole,
}

impl Scope {
    fn of(&self, text: &str) -> Overlap {
        // An edit has made it invalid, and its author must look at it.
        let Some(devices) = described(text) else {
            return Overlap::Part;
        };
        let tailnet = self.tailnet.as_ref();
        let replaced = devices.iter().filter(|id| {
            // A device that has left the tailnet needs no description.
            self.exported.contains(*id) || tailnet.is_some_and(|devices| !devices.contains(*id))
        });
        match replaced.count() {
            0 => Overlap::None,
            all if all == devices.len() => Overlap::Whole,
            _ => Overlap::Part,
        }
    }
}

/// The ids in the policies of an earlier export; `None` if they cannot be read.
fn described(text: &str) -> Option<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let Some(policy) = Option::<TailscaleDevicePolicy>::deserialize(document).ok()? else {
            continue;
        };
        if let Some(device) = policy.spec.device {
            ids.extend(device.node_id.or(device.id));
        }
        let selector = policy.spec.device_selector;
        if let Some(expression) = selector.and_then(|selector| selector.expression) {
            let quoted = expression.split('\'').skip(1).step_by(2);
            ids.extend(quoted.map(str::to_owned));
        }
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_untouched_until_somebody_edits_it() {
        let text = sealed("# Written by: tsdp export\n", "a: 1\n");
        assert!(is_untouched(&text));
        assert!(is_untouched(&text.replace('\n', "\r\n")));
        assert!(!is_untouched(&text.replace("a: 1", "a: 2")));
        assert!(!is_untouched(&(text.clone() + "b: 2\n")));
        assert!(!is_untouched(&text.replace("Written by", "Based on")));
        assert!(!is_untouched("# Written by: tsdp export\na: 1\n"));
    }
}
