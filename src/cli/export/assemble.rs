//! From descriptions to the files of an export.

use super::{
    args::{ExportArgs, GroupBy},
    description::Description,
    files::Candidate,
    group::{self, ManifestFile},
    summary::Summary,
};
use crate::api::{TailnetReference, TailscaleDevicePolicySpec as Spec};

/// The files for devices that have something to declare.
pub(super) fn assemble(
    args: &ExportArgs,
    descriptions: Vec<Description>,
    summary: &mut Summary,
) -> Result<Vec<ManifestFile>, serde_json::Error> {
    let all: Vec<Candidate> = descriptions.iter().map(Candidate::of).collect();
    let (described, empty): (Vec<_>, Vec<_>) = descriptions
        .into_iter()
        .partition(|description| description.desired != Spec::default());
    summary.devices = described.len();
    summary.nothing = empty.len();
    for description in empty {
        let label = description.label;
        let gaps = description.gaps.into_iter();
        summary
            .gaps
            .extend(gaps.map(|gap| format!("{label}: {gap}")));
    }
    let mut files = match args.group_by {
        GroupBy::None => group::one_each(described),
        GroupBy::Tag => group::shared(described, &all)?,
    };
    summary.files = files.len();
    for manifest in files.iter_mut().flat_map(|file| &mut file.manifests) {
        summary.policies += 1;
        let tailnet = args.tailnet_ref.clone();
        manifest.spec.tailnet_ref = tailnet.map(|name| TailnetReference { name });
    }
    Ok(files)
}
