//! `tsdp export`: the current tailnet as manifests that change nothing when they are applied.

mod args;
mod assemble;
mod describe;
mod description;
mod destination;
mod files;
mod folder;
mod group;
mod names;
mod settings;
mod shares;
mod summary;
mod terraform;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use jiff::Timestamp;

use super::{process::AnyError, snapshot::Snapshot};
use crate::{
    model::{Attributes, Device, NodeId},
    plan::{DeviceIndex, Selector},
};
pub(super) use args::ExportArgs;
use assemble::assemble;
use describe::{Wanted, describe};
use destination::Trailer;
use folder::Scope;
use group::ManifestFile;
use summary::Summary;

/// What an export found.
struct Export {
    files: Vec<ManifestFile>,
    summary: Summary,
    scope: Scope,
}

/// Reads the tailnet and writes the manifests. If a device could not be read completely, writes the
/// rest first, and then fails.
pub(super) async fn run(args: ExportArgs) -> Result<ExitCode, AnyError> {
    if let Some(file) = &args.from_terraform {
        return terraform::run(&args, file);
    }
    let selector = args.select.selector()?;
    let client = args.connection.client()?;
    let mut snapshot = Snapshot::new(&client).await?;
    let nodes = |predicate: fn(&Device) -> bool| -> Vec<NodeId> {
        let exported = snapshot
            .own()
            .filter(|it| args.exports(it, &selector))
            .filter(|device| predicate(device));
        exported.map(|device| device.node_id.clone()).collect()
    };
    let all = nodes(|_| true);
    let without_routes = nodes(|device| device.enabled_routes.is_none());
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
    let (fleet, attributes) = (&snapshot.fleet, &snapshot.attributes);
    let mut export = args.export(fleet, attributes, &selector, Timestamp::now())?;
    if snapshot.skipped > 0 {
        // The devices of earlier files may be among those that cannot be read.
        export.scope.tailnet = None;
    }
    args.write(&export.files, &export.scope, &Trailer::default())?;
    export.summary.print();
    snapshot.print_failures();
    Ok(if snapshot.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl ExportArgs {
    /// The policies for the selected devices.
    fn export(
        &self,
        fleet: &DeviceIndex,
        attributes: &BTreeMap<NodeId, Attributes>,
        selector: &Selector,
        now: Timestamp,
    ) -> Result<Export, serde_json::Error> {
        let mut fields = self.fields.clone();
        // The order of the flag must not change the files.
        fields.sort_by_key(|field| field.position());
        fields.dedup();
        let wanted = Wanted {
            fields: &fields,
            defaults: self.all,
            now,
        };
        let selected = || fleet.devices().filter(|device| selector.matches(device));
        let mut descriptions = Vec::new();
        for device in selected().filter(|device| self.exports(device, selector)) {
            let read = attributes.get(&device.node_id);
            let mut description = describe(device, read, wanted);
            if read.is_none() && self.needs_attributes() {
                description.gap("postureAttributes", "could not be read");
            }
            descriptions.push(description);
        }
        let mut summary = Summary {
            ephemeral: selected().count() - descriptions.len(),
            external: fleet.devices().count() - fleet.own_count(),
            ..Summary::default()
        };
        let ids = |devices: &mut dyn Iterator<Item = &Device>| -> BTreeSet<String> {
            devices.map(|device| device.node_id.to_string()).collect()
        };
        let scope = Scope {
            exported: ids(&mut selected().filter(|device| self.exports(device, selector))),
            tailnet: Some(ids(&mut fleet.devices())),
        };
        let files = assemble(self, descriptions, &mut summary)?;
        Ok(Export {
            files,
            summary,
            scope,
        })
    }
}
