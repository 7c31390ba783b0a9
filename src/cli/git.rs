//! Files at a git revision, read with the program git.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
};

use super::manifests::{self, Source};

/// The manifests in these files and folders at a revision.
pub(super) fn sources_at(revision: &str, paths: &[PathBuf]) -> Result<Vec<Arc<Source>>, String> {
    let mut sources = Vec::new();
    for path in paths {
        // Checked here, as git would look for a file of this name and report none.
        if path == Path::new("-") {
            return Err(
                "standard input has no earlier revision. Name the folder of the earlier \
                        manifests"
                    .to_owned(),
            );
        }
        let location = RepoPath::of(path);
        let commit = location.commit(revision)?;
        let entries = location.entries(&commit)?;
        let texts = location.texts(&entries)?;
        for (entry, text) in entries.into_iter().zip(texts) {
            let name = format!("{revision}:{}", entry.path);
            sources.push(Arc::new(Source::new(name, text)));
        }
    }
    Ok(sources)
}

/// A file or a folder of a git repository.
struct RepoPath<'a> {
    /// The working folder of git.
    folder: &'a Path,
    /// The file in it. `None` means the whole folder.
    file: Option<&'a Path>,
}

/// A file at a revision.
struct Entry {
    object: String,
    path: String,
}

impl<'a> RepoPath<'a> {
    fn of(path: &'a Path) -> Self {
        if path.is_dir() {
            return Self {
                folder: path,
                file: None,
            };
        }
        let folder = path
            .parent()
            // The parent of a bare file name is the empty path, which `git -C` takes for no folder
            // at all.
            .filter(|folder| !folder.as_os_str().is_empty());
        Self {
            folder: folder.unwrap_or(Path::new(".")),
            file: path.file_name().map(Path::new),
        }
    }

    fn git(&self) -> Command {
        let mut command = Command::new("git");
        // The manifests may be in another repository than the current folder.
        command.arg("-C").arg(self.folder);
        command
    }

    /// The hash of the commit that a revision names. Later commands get the hash: git cannot take it for an
    /// option, as it could the user's input.
    fn commit(&self, revision: &str) -> Result<String, String> {
        let mut command = self.git();
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        // `^{commit}` resolves an annotated tag, and refuses anything that is no commit.
        command.arg(format!("{revision}^{{commit}}"));
        match run(&mut command) {
            Ok(commit) => Ok(commit.trim().to_owned()),
            Err(message) if message.is_empty() => {
                let folder = self.folder.display();
                Err(format!("git finds no such revision in {folder}"))
            }
            Err(message) => Err(message),
        }
    }

    fn entries(&self, commit: &str) -> Result<Vec<Entry>, String> {
        let mut command = self.git();
        // Without `-z`, git quotes unusual file names.
        command.args(["ls-tree", "-r", "-z", commit, "--"]);
        command.args(self.file);
        let listed = run(&mut command)?;
        let entries = listed.split('\0').filter_map(|line| {
            let (about, path) = line.split_once('\t')?;
            let mut columns = about.split(' ');
            let (mode, object) = (columns.next()?, columns.nth(1)?);
            // Not symbolic links, and not submodules.
            let is_file = mode.starts_with("100");
            // The same rules as for a folder of the file system.
            let is_hidden = path.split('/').any(|name| name.starts_with('.'));
            let is_manifest = !is_hidden && manifests::is_manifest(Path::new(path));
            // A file that the user names counts, whatever its extension.
            let is_wanted = self.file.is_some() || is_manifest;
            (is_file && is_wanted).then(|| Entry {
                object: object.to_owned(),
                path: path.to_owned(),
            })
        });
        Ok(entries.collect())
    }

    fn texts(&self, entries: &[Entry]) -> Result<Vec<String>, String> {
        let request: String = entries
            .iter()
            .flat_map(|entry| [entry.object.as_str(), "\n"])
            .collect();
        let mut command = self.git();
        // One process for all files: one for each would take seconds in a large repository.
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped());
        let mut child = start(&mut command)?;
        let stdin = child.stdin.take();
        // git answers while it reads. Writing everything before reading would deadlock once both pipes are
        // full.
        let writer =
            thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(request.as_bytes())));
        let response = child.wait_with_output().map_err(cannot_run)?;
        // A failed write needs no report: its answer is missing below.
        let _ = writer.join();
        let mut rest = response.stdout.as_slice();
        let texts = entries.iter().map(|entry| {
            let broken = || format!("git cannot show {}", entry.path);
            let end = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .ok_or_else(broken)?;
            let (head, body) = rest.split_at(end + 1);
            let head = String::from_utf8_lossy(head);
            let size: usize = head
                .trim()
                .rsplit(' ')
                .next()
                .and_then(|size| size.parse().ok())
                .ok_or_else(broken)?;
            // By its size, not by lines: a file may hold anything.
            let text = body.get(..size).ok_or_else(broken)?;
            // The line break after the content belongs to the protocol of `cat-file --batch`.
            rest = body.get(size + 1..).unwrap_or_default();
            String::from_utf8(text.to_vec())
                .map_err(|_| format!("{} is not UTF-8 text", entry.path))
        });
        texts.collect()
    }
}

fn start(command: &mut Command) -> Result<std::process::Child, String> {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(cannot_run)
}

fn run(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = start(command.stdin(Stdio::null()))?
        .wait_with_output()
        .map_err(cannot_run)?;
    if !status.success() {
        return Err(String::from_utf8_lossy(&stderr).trim().to_owned());
    }
    String::from_utf8(stdout).map_err(|_| "git lists file names that are not UTF-8".to_owned())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err needs"
)]
fn cannot_run(error: std::io::Error) -> String {
    format!("cannot run git ({error}). Install it, or name the folder of the earlier manifests")
}
