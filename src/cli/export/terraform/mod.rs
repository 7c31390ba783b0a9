//! `tsdp export --from-terraform`: what Terraform declares as policies, and the handover of its resources.

mod address;
mod describe;
mod handover;
mod show;

use std::{collections::BTreeSet, fs, io, path::Path, process::ExitCode};

use self::{
    describe::{Described, KINDS},
    show::{ShowError, Shown},
};
use super::{
    args::ExportArgs,
    assemble::assemble,
    describe::{Exported, USUAL},
    destination::Trailer,
    folder::Scope,
    summary::Summary,
};
use crate::{
    cli::{output::printable, process::AnyError},
    model::PolicyField,
};

/// The file of the blocks, beside the manifests.
const BLOCKS: &str = "removed.tf";

/// Reads a file that `terraform show -json` has written, and writes the manifests.
pub(super) fn run(args: &ExportArgs, path: &Path) -> Result<ExitCode, AnyError> {
    let name = path.display().to_string();
    let text = if name == "-" {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(path)
    };
    let text = text.map_err(|error| ShowError::Read(name.clone(), error))?;
    let shown = show::parse(&name, &text)?;
    let sets_device = |resource: &&show::Resource| KINDS.contains(&resource.kind.as_str());
    // Of both: a plan can destroy the last one, which can be handed over still.
    if shown
        .declared
        .iter()
        .chain(&shown.managed)
        .find(sets_device)
        .is_none()
    {
        return Err(ShowError::NoDevice(name).into());
    }
    let described = describe::describe(&shown, &fields(args));
    let refused = described.problems.iter();
    let staying: BTreeSet<&str> = refused.map(|(address, _)| address.as_str()).collect();
    let blocks = handover::blocks(shown.managed.iter().filter(sets_device), &staying);
    report(&shown, &described);
    let scope = Scope {
        exported: described
            .devices
            .iter()
            .map(|device| device.id.as_str().to_owned())
            .collect(),
        // No list was read, so no file of an earlier export can be known to be superfluous.
        tailnet: None,
    };
    let mut summary = Summary::default();
    let files = assemble(args, described.devices, &mut summary)?;
    let trailer = Trailer {
        comments: handover::as_comments(&blocks),
        file: (!blocks.is_empty()).then_some((BLOCKS, blocks)),
    };
    args.write(&files, &scope, &trailer)?;
    summary.print();
    Ok(ExitCode::SUCCESS)
}

/// Terraform declares `authorized` only on purpose.
fn fields(args: &ExportArgs) -> Vec<Exported> {
    if args.fields == USUAL {
        return USUAL
            .into_iter()
            .chain([Exported(PolicyField::Authorized)])
            .collect();
    }
    args.fields.clone()
}

fn report(shown: &Shown, described: &Described) {
    for address in &described.staying {
        eprintln!(
            "No counterpart: {} stays with Terraform.",
            printable(address)
        );
    }
    for (address, why) in &described.problems {
        let (address, why) = (printable(address), printable(why));
        eprintln!("Not declared: {address} stays with Terraform: {why}.");
    }
    for resource in &shown.managed {
        let is_kept = shown
            .declared
            .iter()
            .any(|it| it.address == resource.address);
        // A block `removed` keeps the device, while the plan alone would reset it.
        if !is_kept && KINDS.contains(&resource.kind.as_str()) {
            eprintln!(
                "Not declared: {}: the plan destroys it. The device stays as it is if you hand it over.",
                printable(&resource.address)
            );
        }
    }
}
