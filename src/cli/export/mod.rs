//! `tsdp export`: the current tailnet as manifests that change nothing when they are applied.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod describe;
mod group;
mod names;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output,
    process::AnyError,
    select::SelectArgs,
    snapshot::Snapshot,
};
use crate::{
    api::{GROUP, TailnetReference, TailscaleDevicePolicySpec, VERSION},
    model::{Attributes, Device, FieldKind, NodeId, PolicyField},
    plan::{DeviceIndex, Selector},
};
use describe::{Exported, USUAL, describe};
use group::Manifest;

/// The devices and settings to export, and the destination.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Applying the exported policies as they are changes nothing. Settings that they do not declare stay as they
are. Review the policies, edit them, and apply them. The export leaves out devices that are shared in from
other tailnets, and attributes outside of the namespace custom:.

{CREDENTIAL_HELP}

Examples:
  tsdp export --out tailnet/                             write a file for each device
  tsdp export --group-by tag --out tailnet/              write one policy for devices with the same tags
  tsdp export --select tags=tag:router                   print the policies of the routers
  tsdp export --without-attributes | kubectl diff -f -   compare with the policies of a cluster"))]
pub(super) struct ExportArgs {
    /// Write a file for each policy into this folder, instead of all of them to stdout.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Overwrite files that exist with other content.
    #[arg(long, requires = "out")]
    force: bool,
    /// Write one policy for the settings that all devices with certain tags share.
    #[arg(long, value_enum, value_name = "WHAT")]
    group_by: Option<GroupBy>,
    /// The settings to write, separated by commas. The default leaves out authorized, name and ipv4, as a
    /// policy would revert a change that someone makes to them in an emergency.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SETTINGS", default_values_t = USUAL)]
    fields: Vec<Exported>,
    /// Leave out posture attributes. Reading them takes one request for each device.
    #[arg(long)]
    without_attributes: bool,
    /// The namespace to write into the manifests [default: none, so that kubectl chooses].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The TailscaleTailnet to write into the manifests [default: none, which means "default"].
    #[arg(long, value_name = "NAME")]
    tailnet_ref: Option<String>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GroupBy {
    /// By the tags of a device.
    Tag,
}

/// Reads the tailnet and writes the manifests. If a device could not be read completely, writes the
/// rest first, and then fails.
pub(super) async fn run(args: ExportArgs) -> Result<ExitCode, AnyError> {
    let selector = args.select.selector()?;
    let client = args.connection.client()?;
    let mut snapshot = Snapshot::new(&client).await?;
    let nodes = |predicate: fn(&Device) -> bool| -> Vec<NodeId> {
        snapshot
            .own()
            .filter(|device| selector.matches(device) && predicate(device))
            .map(|device| device.node_id.clone())
            .collect()
    };
    let (all, without_routes) = (
        nodes(|_| true),
        nodes(|device| device.enabled_routes.is_none()),
    );
    let (exported, external) = (
        all.len(),
        snapshot.fleet.devices().count() - snapshot.own().count(),
    );
    if args.needs_routes() {
        snapshot.read_routes(&client, without_routes).await?;
    }
    if args.needs_attributes() {
        let read = snapshot.read_attributes(&client, all).await;
        // A credential that may not read attributes can still export the rest.
        read.map_err(|error| {
            format!("{error}. Add --without-attributes to leave the attributes out")
        })?;
    }
    let manifests = args.manifests(
        &snapshot.fleet,
        &snapshot.attributes,
        &selector,
        Timestamp::now(),
    );
    let count = manifests.len();
    match &args.out {
        None => output::print(&args.stream(&manifests)?)?,
        Some(folder) => args.write(folder, &manifests)?,
    }
    // On stderr, as stdout may be piped into kubectl.
    eprintln!(
        "{count} policies for {exported} devices{}.",
        match external {
            0 => String::new(),
            more => format!(", without {more} that are shared in from other tailnets"),
        }
    );
    snapshot.print_failures();
    Ok(if snapshot.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

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

impl ExportArgs {
    fn needs_routes(&self) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|field| matches!(field.0.kind(), FieldKind::List(list) if list.is_of_routes()))
    }

    fn needs_attributes(&self) -> bool {
        !self.without_attributes
            && self
                .fields
                .contains(&Exported(PolicyField::PostureAttributes))
    }

    /// The policies for the selected devices.
    fn manifests(
        &self,
        fleet: &DeviceIndex,
        attributes: &BTreeMap<NodeId, Attributes>,
        selector: &Selector,
        now: Timestamp,
    ) -> Vec<Manifest> {
        let mut settings = self.fields.clone();
        // The order of the flag must not change the files.
        settings.sort_by_key(|field| field.position());
        settings.dedup();
        let mut descriptions = Vec::new();
        for device in fleet.devices().filter(|device| selector.matches(device)) {
            let read = attributes.get(&device.node_id);
            let mut description = describe(device, read, &settings, now);
            if read.is_none() && self.needs_attributes() {
                let gap = "postureAttributes: could not be read".to_owned();
                description.gaps.push(gap);
            }
            descriptions.push(description);
        }
        let mut manifests = match self.group_by {
            None => group::one_each(descriptions),
            Some(GroupBy::Tag) => group::by_tags(descriptions, fleet),
        };
        for manifest in &mut manifests {
            let tailnet = self.tailnet_ref.clone();
            manifest.spec.tailnet_ref = tailnet.map(|name| TailnetReference { name });
        }
        manifests
    }

    /// All policies as one stream of YAML documents.
    fn stream(&self, manifests: &[Manifest]) -> Result<String, serde_yaml::Error> {
        let mut stream = self.header();
        for manifest in manifests {
            stream += "---\n";
            stream += &self.document(manifest)?;
        }
        Ok(stream)
    }

    /// Writes a file for each policy. Writes none of them if any would overwrite another content.
    fn write(&self, folder: &Path, manifests: &[Manifest]) -> Result<(), AnyError> {
        let at = |path: &Path, error| format!("cannot write {}: {error}", path.display());
        let mut files = Vec::new();
        let mut existing = Vec::new();
        for manifest in manifests {
            let path = folder.join(format!("{}.yaml", manifest.name));
            let text = self.header() + &self.document(manifest)?;
            match fs::read(&path) {
                // A repeated export touches no file that is up to date.
                Ok(existing) if existing == text.as_bytes() => {}
                Ok(_) if !self.force => existing.push(path.display().to_string()),
                _ => files.push((path, text)),
            }
        }
        if !existing.is_empty() {
            return Err(format!(
                "these files exist with other content, so nothing was written: {}. Choose another folder, \
                 or add --force to overwrite them",
                 existing.join(", ")
            )
            .into());
        }
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
        for (path, text) in files {
            fs::write(&path, text).map_err(|error| at(&path, error))?;
        }
        Ok(())
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
        let mut command = vec!["Written by: tsdp export".to_owned()];
        if self.group_by.is_some() {
            command.push("--group-by tag".to_owned());
        }
        if self.fields != USUAL {
            let names: Vec<&str> = self.fields.iter().map(|field| field.0.as_str()).collect();
            command.push(format!("--fields {}", names.join(",")));
        }
        if self.without_attributes {
            command.push("--without-attributes".to_owned());
        }
        let parts = self.select.parts.iter();
        command.extend(parts.map(|part| format!("--select '{part}'")));
        text::comment(&command.join(" "))
    }
}
