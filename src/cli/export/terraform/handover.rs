//! The blocks by which Terraform stops managing resources and leaves their devices as they are.

use std::collections::{BTreeMap, BTreeSet};

use super::{address, show::Resource};
use crate::cli::{export::text, output::printable};

/// What the blocks are for.
const EXPLANATION: [&str; 4] = [
    "Hands the resources below over to tsdp. Add these blocks to the root module, delete the resource blocks",
    "and the outputs that use them, and run terraform apply (Terraform 1.7 or later). Terraform then forgets the",
    "resources and leaves the devices as they are. Without the blocks, it would enable key expiry again and withdraw",
    "the routes. The plan must say: 0 to add, 0 to change, 0 to destroy.",
];

/// The text of the blocks for these resources. Those that no policy declares, `staying`, stay with Terraform, unless
/// another instance of the same resource is handed over.
pub(super) fn blocks<'a>(
    resources: impl Iterator<Item = &'a Resource>,
    staying: &BTreeSet<&str>,
) -> String {
    let mut instances: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for resource in resources {
        let configured = address::of_configuration(&resource.address);
        let of_block = instances.entry(configured).or_default();
        of_block.push(&resource.address);
    }
    // A block names a resource with all of its instances, so it is written if any of them goes.
    instances.retain(|_, addresses| !addresses.iter().all(|address| staying.contains(address)));
    if instances.is_empty() {
        return String::new();
    }
    let mut blocks: String = EXPLANATION.into_iter().map(text::comment).collect();
    for (configured, addresses) in instances {
        blocks += "\n";
        for address in addresses {
            let remark = if staying.contains(address) {
                ", which no policy declares"
            } else {
                ""
            };
            blocks += &text::comment(&format!("{address}{remark}"));
        }
        blocks += &block(&printable(&configured));
    }
    blocks
}

fn block(configured: &str) -> String {
    format!("removed {{\n  from = {configured}\n\n  lifecycle {{\n    destroy = false\n  }}\n}}\n")
}

/// The blocks as comments, for a stream of YAML.
pub(super) fn as_comments(blocks: &str) -> String {
    blocks
        .lines()
        .map(|line| match line {
            "" => "#\n".to_owned(),
            line if line.starts_with('#') => format!("{line}\n"),
            line => format!("# {line}\n"),
        })
        .collect()
}
