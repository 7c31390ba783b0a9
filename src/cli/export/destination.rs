//! Where the manifests of an export go, and as what text.

use std::path::Path;

use serde::Serialize;

use super::{
    args::{ExportArgs, GroupBy},
    describe::USUAL,
    folder::{self, Earlier, Scope},
    group::{Manifest, ManifestFile},
    text,
};
use crate::{
    api::{GROUP, TailscaleDevicePolicySpec, VERSION},
    cli::{output, process::AnyError},
};

/// A manifest, with its fields in the order in which people write them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    api_version: String,
    kind: &'a str,
    metadata: Metadata<'a>,
    spec: &'a TailscaleDevicePolicySpec,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

/// What belongs to the manifests and is not one: a file beside them, or comments after them.
#[derive(Debug, Default)]
pub(super) struct Trailer {
    pub file: Option<(&'static str, String)>,
    pub comments: String,
}

impl ExportArgs {
    /// Writes the manifests to stdout, into one file, or into a folder.
    pub(super) fn write(
        &self,
        files: &[ManifestFile],
        scope: &Scope,
        trailer: &Trailer,
    ) -> Result<(), AnyError> {
        let header = self.header();
        // A folder is written as a whole, so that files of an earlier export can be removed.
        let Some(path) = self.out.as_deref().filter(|path| !is_file(path)) else {
            let stream = self.stream(files)? + &trailer.comments;
            match &self.out {
                None => output::print(&(header + &stream))?,
                Some(path) => {
                    folder::write_file(path, &folder::sealed(&header, &stream), self.force)?;
                }
            }
            return Ok(());
        };
        let mut texts = Vec::new();
        for file in files {
            let body = self.documents(&file.manifests)?.join("---\n");
            texts.push((
                format!("{}.yaml", file.name),
                folder::sealed(&header, &body),
            ));
        }
        if let Some((name, body)) = &trailer.file {
            texts.push(((*name).to_owned(), folder::sealed(&header, body)));
        }
        report(&folder::write(path, &texts, scope, self.force)?);
        Ok(())
    }

    /// All policies as one stream of YAML documents.
    pub(super) fn stream(&self, files: &[ManifestFile]) -> Result<String, serde_yaml::Error> {
        let mut stream = String::new();
        for file in files {
            for document in self.documents(&file.manifests)? {
                stream += "---\n";
                stream += &document;
            }
        }
        Ok(stream)
    }

    fn documents(&self, manifests: &[Manifest]) -> Result<Vec<String>, serde_yaml::Error> {
        let manifests = manifests.iter();
        manifests.map(|manifest| self.document(manifest)).collect()
    }

    fn document(&self, manifest: &Manifest) -> Result<String, serde_yaml::Error> {
        let object = serde_yaml::to_value(Object {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "TailscaleDevicePolicy",
            metadata: Metadata {
                name: &manifest.name,
                namespace: self.namespace.as_deref(),
            },
            spec: &manifest.spec,
        })?;
        let comments = manifest.comments.iter().map(|text| text::comment(text));
        let fields = object.as_mapping().map(text::yaml).unwrap_or_default();
        Ok(comments.collect::<String>() + &fields)
    }

    /// The command that wrote it. Without a time, so that the same tailnet always gives the same files.
    fn header(&self) -> String {
        let mut command = vec![folder::WRITTEN_BY.to_owned()];
        if let Some(file) = &self.from_terraform {
            let name = file.file_name().unwrap_or(file.as_os_str());
            command.push(format!("--from-terraform {}", name.display()));
        }
        // Only what differs from the defaults: the header names the command that gives the same files.
        if self.group_by == GroupBy::None {
            command.push("--group-by none".to_owned());
        }
        if self.fields != USUAL {
            let names: Vec<&str> = self.fields.iter().map(|field| field.0.as_str()).collect();
            command.push(format!("--fields {}", names.join(",")));
        }
        let flags = [
            (self.all, "--all"),
            (self.without_attributes, "--without-attributes"),
            (self.include_ephemeral, "--include-ephemeral"),
        ]
        .into_iter()
        .filter(|(is_given, _)| *is_given);
        command.extend(flags.map(|(_, flag)| flag.to_owned()));
        let parts = self.select.parts.iter();
        command.extend(parts.map(|part| format!("--select '{part}'")));
        text::comment(&command.join(" "))
    }
}

/// Whether a path names a file and not a folder.
fn is_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    !path.is_dir() && matches!(extension, Some("yaml" | "yml"))
}

fn report(earlier: &Earlier) {
    for path in &earlier.removed {
        let path = path.display();
        eprintln!("Removed {path}: this export describes its devices elsewhere, or not at all.");
    }
    for path in &earlier.kept {
        let path = path.display();
        eprintln!(
            "tsdp: {path} is from an earlier export and stays, because someone has edited it or it also describes \
             other devices. Remove what this export describes elsewhere, or not at all"
        );
    }
}
