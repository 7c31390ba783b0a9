//! Reads files, folders and standard input.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    code::Code,
    diagnostic::Diagnostic,
    foreign::{self, NotYaml},
    span::Source,
    text::Text,
};

/// The name of standard input.
const STDIN: &str = "-";
/// The files that kubectl reads from a folder.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads all paths, in the order of the arguments and, within a folder, of the names. Leaves out `written`, unless
/// it is one of the paths.
pub fn read(paths: &[PathBuf], written: Option<&Path>) -> (Vec<Arc<Source>>, Vec<Diagnostic>) {
    let mut input = Input {
        // A file that does not exist yet is in no folder.
        written: written.and_then(|path| path.canonicalize().ok()),
        ..Input::default()
    };
    for path in paths {
        input.take(path);
    }
    (input.sources, input.diagnostics)
}

#[derive(Default)]
pub(super) struct Input {
    sources: Vec<Arc<Source>>,
    diagnostics: Vec<Diagnostic>,
    names: HashSet<String>,
    /// The file that the command writes.
    written: Option<PathBuf>,
}

impl Input {
    fn take(&mut self, path: &Path) {
        let name = path.display().to_string();
        if name == STDIN {
            let mut bytes = Vec::new();
            let read = io::stdin().read_to_end(&mut bytes);
            self.add_bytes(name, read.map(|_| bytes));
        } else if path.is_dir() {
            self.folder(path);
        } else {
            self.file(path);
        }
    }

    /// Reads a folder with its subfolders. Skips hidden entries, and does not follow links to folders.
    fn folder(&mut self, folder: &Path) {
        let entries = match list(folder) {
            Ok(entries) => entries,
            Err(error) => {
                let name = folder.display().to_string();
                self.diagnostics.push(Diagnostic::unreadable(&name, &error));
                return;
            }
        };
        for (path, kind) in entries {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            if kind.is_dir() {
                self.folder(&path);
            } else if is_manifest(&path) && !self.is_written(&path) {
                self.file(&path);
            }
        }
    }

    fn is_written(&self, path: &Path) -> bool {
        let written = self.written.as_ref();
        written.is_some_and(|written| path.canonicalize().is_ok_and(|path| path == *written))
    }

    fn file(&mut self, path: &Path) {
        self.add_bytes(path.display().to_string(), fs::read(path));
    }

    fn add_bytes(&mut self, name: String, bytes: io::Result<Vec<u8>>) {
        match bytes.map(foreign::decode) {
            Ok(Ok(text)) => self.add(name, Ok(text)),
            Err(error) => self.add(name, Err(error)),
            // A file can be given twice.
            Ok(Err(_)) if !self.names.insert(name.clone()) => {}
            Ok(Err(NotYaml { what, help })) => {
                let text = Text::new(format!("this is {what}")).help(help);
                let diagnostic = Diagnostic::of_file(Code::NotYaml, &name, text);
                self.diagnostics.push(diagnostic);
            }
        }
    }

    pub(super) fn add(&mut self, name: String, text: io::Result<String>) {
        // A file can be given twice, by itself and by its folder: read it once.
        if !self.names.insert(name.clone()) {
            return;
        }
        match text {
            Ok(text) => self.sources.push(Arc::new(Source::new(name, text))),
            Err(error) => self.diagnostics.push(Diagnostic::unreadable(&name, &error)),
        }
    }
}

/// Whether kubectl would read this file from a folder.
pub fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// The sorted entries of a folder, with their kinds.
fn list(folder: &Path) -> io::Result<Vec<(PathBuf, fs::FileType)>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    // The order of the file system differs between machines, and messages must not.
    entries.sort_by_key(fs::DirEntry::file_name);
    entries
        .iter()
        .map(|entry| Ok((entry.path(), entry.file_type()?)))
        .collect()
}
