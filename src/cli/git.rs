//! Files at a git revision, read with the program git.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Component, Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
};

use super::manifests::{self, Diagnostic, Source};

/// Why the manifests at a revision cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// The path is standard input.
    #[error("standard input has no earlier revision. Name the folder of the earlier manifests")]
    StandardInput,
    /// The repository does not have the revision.
    #[error("git finds no such revision in {0}")]
    UnknownRevision(String),
    /// A link leads out of the repository.
    #[error("{0} is a link that leaves the repository. Name the folder that it leads to")]
    LeavesRepository(String),
    /// git lists a file and does not show it.
    #[error("git cannot show {0}")]
    NotShown(String),
    /// A file name is not UTF-8.
    #[error("git lists file names that are not UTF-8")]
    FileName,
    /// A path of this machine cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    /// There is no git, or it ends at once.
    #[error("cannot run git ({0}). Install it, or name the folder of the earlier manifests")]
    CannotRun(#[source] io::Error),
    /// git refuses, in its own words; without any for a revision that does not exist.
    #[error("{0}")]
    Refused(String),
}

/// The manifests at a revision.
#[derive(Debug, Default)]
pub(super) struct AtRevision {
    pub sources: Vec<Arc<Source>>,
    /// Why some of them cannot be read.
    pub diagnostics: Vec<Diagnostic>,
    /// The paths that had no manifest.
    pub without: Vec<PathBuf>,
}

/// The manifests in these files and folders at a revision: those that were at the paths then, through links as
/// they were then, and those that git recognizes as renamed since.
pub(super) fn sources_at(revision: &str, paths: &[PathBuf]) -> Result<AtRevision, GitError> {
    let mut found = AtRevision::default();
    for path in paths {
        // Checked here, as git would look for a file of this name and report none.
        if path == Path::new("-") {
            return Err(GitError::StandardInput);
        }
        let location = RepoPath::of(path)?;
        let commit = location.commit(revision)?;
        let mut entries = location.entries(&commit)?;
        let known: BTreeSet<String> = entries.iter().map(|entry| entry.path.clone()).collect();
        let renamed = location.renamed(&commit)?.into_iter();
        entries.extend(renamed.filter(|entry| !known.contains(&entry.path)));
        if entries.is_empty() {
            found.without.push(path.clone());
        }
        let texts = location.texts(&entries)?;
        for (entry, text) in entries.into_iter().zip(texts) {
            let name = format!("{revision}:{}", entry.path);
            match text {
                Ok(text) => found.sources.push(Arc::new(Source::new(name, text))),
                Err(why) => found.diagnostics.push(Diagnostic::unreadable(&name, &why)),
            }
        }
    }
    Ok(found)
}

/// A file or a folder of a git repository.
struct RepoPath {
    /// The top folder of the repository.
    root: PathBuf,
    /// The path in it, with its links: another revision may link to another place.
    path: PathBuf,
    /// The path without links.
    real: PathBuf,
    is_folder: bool,
}

/// A file at a revision.
struct Entry {
    /// The name of its content for git: a hash, or for a link the commit and the path, as git then follows it.
    object: String,
    path: String,
}

impl RepoPath {
    fn of(path: &Path) -> Result<Self, GitError> {
        let is_folder = path.is_dir();
        // A link belongs to the repository that it is in, and not to the one that it leads to.
        let folder = if is_folder && !path.is_symlink() {
            path
        } else {
            let parent = path.parent();
            // The parent of a bare file name is the empty path, which `git -C` takes for no folder at all.
            let named = parent.filter(|folder| !folder.as_os_str().is_empty());
            named.unwrap_or(Path::new("."))
        };
        let mut command = git(folder);
        let root = run(command.args(["rev-parse", "--show-toplevel"]))?;
        let root = canonical(Path::new(root.trim_end_matches('\n')))?;
        let real = canonical(path)?;
        let real = real.strip_prefix(&root).unwrap_or(&real).to_owned();
        Ok(Self {
            path: in_repo(path, &root).unwrap_or_else(|| real.clone()),
            root,
            real,
            is_folder,
        })
    }

    /// The hash of the commit that a revision names. Later commands get the hash: git cannot take it for an
    /// option, as it could the user's input.
    fn commit(&self, revision: &str) -> Result<String, GitError> {
        let mut command = git(&self.root);
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        // `^{commit}` resolves an annotated tag, and refuses anything that is no commit.
        command.arg(format!("{revision}^{{commit}}"));
        match run(&mut command) {
            Ok(commit) => Ok(commit.trim().to_owned()),
            Err(GitError::Refused(message)) if message.is_empty() => {
                let folder = self.root.display().to_string();
                Err(GitError::UnknownRevision(folder))
            }
            Err(error) => Err(error),
        }
    }

    /// The manifests that were at the path.
    fn entries(&self, commit: &str) -> Result<Vec<Entry>, GitError> {
        let path = slashed(&self.path);
        let mut command = git(&self.root);
        command.args(["cat-file", "--batch-check", "--follow-symlinks"]);
        let answer = converse(&mut command, format!("{commit}:{path}\n"))?;
        let answer = String::from_utf8_lossy(&answer);
        let mut words = answer.split_whitespace();
        match (words.next(), words.next()) {
            (Some(tree), Some("tree")) => self.below(commit, tree, &path),
            (Some(object), Some("blob")) => Ok(vec![Entry {
                object: object.to_owned(),
                path,
            }]),
            (Some("symlink"), _) => Err(GitError::LeavesRepository(path)),
            // Missing, or a link to nothing.
            _ => Ok(Vec::new()),
        }
    }

    /// The manifests in a folder.
    fn below(&self, commit: &str, tree: &str, folder: &str) -> Result<Vec<Entry>, GitError> {
        let mut command = git(&self.root);
        // Without `-z`, git quotes unusual file names.
        let listed = run(command.args(["ls-tree", "-r", "-z", "--full-tree", tree]))?;
        let entries = listed.split('\0').filter_map(|line| {
            let (about, name) = line.split_once('\t')?;
            let mut columns = about.split(' ');
            let (mode, object) = (columns.next()?, columns.nth(1)?);
            let path = match folder {
                "" => name.to_owned(),
                _ => format!("{folder}/{name}"),
            };
            let object = match mode {
                // A manifest can be a link to a file, which git follows within the repository.
                "120000" => format!("{commit}:{path}"),
                _ if mode.starts_with("100") => object.to_owned(),
                // A submodule.
                _ => return None,
            };
            is_wanted(name).then_some(Entry { object, path })
        });
        Ok(entries.collect())
    }

    /// The files that have been renamed since and are at the path now.
    fn renamed(&self, commit: &str) -> Result<Vec<Entry>, GitError> {
        let mut command = git(&self.root);
        // `-l0`: whatever their number. The rest overrules the user's configuration.
        command.args(["diff", "-z", "--name-status", "--find-renames", "-l0"]);
        command.args([
            "--diff-filter=R",
            "--no-ext-diff",
            "--no-relative",
            commit,
            "--",
        ]);
        let listed = run(&mut command)?;
        // The score, the former name and the name of each.
        let mut words = listed.split('\0');
        let mut entries = Vec::new();
        while let (Some(_), Some(former), Some(name)) = (words.next(), words.next(), words.next()) {
            if self.holds(Path::new(name)) {
                entries.push(Entry {
                    object: format!("{commit}:{former}"),
                    path: former.to_owned(),
                });
            }
        }
        Ok(entries)
    }

    /// Whether a file of the repository is at the path now.
    fn holds(&self, file: &Path) -> bool {
        let [below, real] = [&self.path, &self.real].map(|path| file.strip_prefix(path).ok());
        match below.or(real) {
            Some(below) if self.is_folder => below.to_str().is_some_and(is_wanted),
            Some(below) => below.as_os_str().is_empty(),
            None => false,
        }
    }

    /// The texts of entries, in their order.
    fn texts(&self, entries: &[Entry]) -> Result<Vec<io::Result<String>>, GitError> {
        let request = entries.iter().map(|entry| {
            // A request is a line. The empty one gets the answer that nothing has this name.
            let object = Some(&entry.object).filter(|object| !object.contains('\n'));
            format!("{}\n", object.map_or("", String::as_str))
        });
        let mut command = git(&self.root);
        // One process for all files: one for each would take seconds in a large repository.
        command.args(["cat-file", "--batch", "--follow-symlinks"]);
        let answer = converse(&mut command, request.collect())?;
        let mut rest = answer.as_slice();
        let texts = entries
            .iter()
            .map(|entry| text(&mut rest).ok_or_else(|| GitError::NotShown(entry.path.clone())));
        texts.collect()
    }
}

/// The next answer of `cat-file --batch`; `None` if it breaks off.
fn text(rest: &mut &[u8]) -> Option<io::Result<String>> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let head = String::from_utf8_lossy(&rest[..end]);
    *rest = &rest[end + 1..];
    if head.ends_with(" missing") {
        return Some(Err(io::ErrorKind::NotFound.into()));
    }
    let size: usize = head.rsplit(' ').next()?.parse().ok()?;
    // By its size, not by lines: a file may hold anything.
    let content = rest.get(..size)?;
    // The line break after the content belongs to the protocol.
    *rest = rest.get(size + 1..).unwrap_or_default();
    if head.split(' ').nth(1) != Some("blob") {
        // The target of a link that leads to nothing, to a folder, or out of the repository.
        return Some(Err(io::Error::other(
            "it is a link to no file of the repository",
        )));
    }
    let text = String::from_utf8(content.to_vec());
    Some(text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text")))
}

/// Whether a file below a folder is read, by the same rules as in the file system.
fn is_wanted(path: &str) -> bool {
    let is_hidden = path.split('/').any(|name| name.starts_with('.'));
    !is_hidden && manifests::is_manifest(Path::new(path))
}

/// The path in a repository, with its links.
fn in_repo(path: &Path, root: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    // The folder above a link is not the one above its target.
    if absolute
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return None;
    }
    let mut above = absolute.ancestors();
    let top = above.find(|folder| fs::canonicalize(folder).is_ok_and(|folder| folder == root))?;
    Some(absolute.strip_prefix(top).ok()?.to_owned())
}

fn canonical(path: &Path) -> Result<PathBuf, GitError> {
    let found = fs::canonicalize(path);
    found.map_err(|error| GitError::Unreadable(path.display().to_string(), error))
}

fn slashed(path: &Path) -> String {
    let parts = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    // The manifests may be in another repository than the current folder.
    command.arg("-C").arg(folder);
    command
}

/// Runs a command that answers a request on its standard input.
fn converse(command: &mut Command, request: String) -> Result<Vec<u8>, GitError> {
    let mut child = start(command.stdin(Stdio::piped()))?;
    let stdin = child.stdin.take();
    // git answers while it reads. Writing everything before reading would deadlock once both pipes are full.
    let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(request.as_bytes())));
    let response = child.wait_with_output().map_err(GitError::CannotRun)?;
    // A failed write needs no report: its answer is missing.
    let _ = writer.join();
    Ok(response.stdout)
}

fn start(command: &mut Command) -> Result<std::process::Child, GitError> {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(GitError::CannotRun)
}

fn run(command: &mut Command) -> Result<String, GitError> {
    let Output {
        status,
        stdout,
        stderr,
    } = start(command.stdin(Stdio::null()))?
        .wait_with_output()
        .map_err(GitError::CannotRun)?;
    if !status.success() {
        let message = String::from_utf8_lossy(&stderr).trim().to_owned();
        return Err(GitError::Refused(message));
    }
    String::from_utf8(stdout).map_err(|_| GitError::FileName)
}
