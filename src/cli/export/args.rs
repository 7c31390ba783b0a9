//! The flags of `tsdp export`.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::describe::{Exported, USUAL};
use crate::{
    cli::{
        connection::{CREDENTIAL_HELP, ConnectionArgs},
        select::SelectArgs,
    },
    model::{Device, FieldKind, PolicyField},
    plan::Selector,
};

/// The devices and settings to export, and the destination.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(after_help = "\
Examples:
  tsdp export --out tailnet/   write files by tags and by user",
    after_long_help = format!("\
Applying the exported policies as they are changes nothing, also on a device that joins later: each policy
names its devices. Settings that they do not declare stay as they are. The export leaves out settings that
have their default, ephemeral devices, devices that are shared in from other tailnets, and attributes outside
of the namespace custom:.

{CREDENTIAL_HELP}

Examples:
  tsdp export --out tailnet/                             write files by tags and by user
  tsdp export --out tailnet.yaml                         write one file
  tsdp export --group-by none --out tailnet/             write a file for each device
  tsdp export --select tags=tag:router                   print the policies of the routers
  tsdp export --from-terraform state.json                print what Terraform declares
  tsdp export --without-attributes | kubectl diff -f -   compare with the policies of a cluster"))]
pub struct ExportArgs {
    /// Write into this folder, or into this file if it ends in .yaml, instead of to stdout. Files of an
    /// earlier export that nobody has edited are replaced, or removed if their devices are gone.
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Overwrite files that exist with other content.
    #[arg(long, requires = "out")]
    pub force: bool,
    /// tag: files by tags and by user, in which devices share policies for the settings that they have in
    /// common. none: a file and a policy for each device.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = GroupBy::Tag)]
    pub group_by: GroupBy,
    /// The settings to write, separated by commas. The default leaves out authorized, name and ipv4, as a
    /// policy would revert a change that someone makes to them in an emergency.
    #[arg(hide_short_help = true, long, value_enum, value_delimiter = ',', value_name = "SETTINGS", default_values_t = USUAL)]
    pub fields: Vec<Exported>,
    /// Write what Terraform declares: a file that terraform show -json has written, of a state or of a saved plan, or
    /// - for stdin. Needs no credential. Also writes the removed blocks by which Terraform hands its resources over.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["parts", "all", "without_attributes", "include_ephemeral"])]
    pub from_terraform: Option<PathBuf>,
    /// Also write settings that have their default: key expiry enabled, no routes, no exit node.
    #[arg(long)]
    pub all: bool,
    /// Leave out posture attributes. Reading them takes one request for each device.
    #[arg(hide_short_help = true, long)]
    pub without_attributes: bool,
    /// Also write ephemeral devices, which leave the tailnet by themselves.
    #[arg(hide_short_help = true, long)]
    pub include_ephemeral: bool,
    /// The namespace to write into the manifests [default: none, so that kubectl chooses].
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The TailscaleTailnet to write into the manifests [default: none, which means "default"].
    #[arg(long, value_name = "NAME")]
    pub tailnet_ref: Option<String>,
    #[command(flatten)]
    pub select: SelectArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    Tag,
    None,
}

impl ExportArgs {
    /// Whether the routes must be known.
    pub fn needs_routes(&self) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|field| matches!(field.0.kind(), FieldKind::List(list) if list.is_of_routes()))
    }

    /// Whether the attributes must be read.
    pub fn needs_attributes(&self) -> bool {
        !self.without_attributes
            && self
                .fields
                .contains(&Exported(PolicyField::PostureAttributes))
    }

    /// Whether a device is exported.
    pub fn exports(&self, device: &Device, selector: &Selector) -> bool {
        selector.matches(device) && (self.include_ephemeral || !device.ephemeral)
    }
}
