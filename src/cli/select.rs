//! Which devices a command is about.

use clap::Args;

use crate::{
    api::DeviceSelector,
    plan::{self, Selector},
};

/// Devices by what they are: the parts of a policy's `deviceSelector`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SelectArgs {
    /// Only devices that fit, as a policy's deviceSelector has it: tags=tag:router (all of these),
    /// users=*@example.com, hostnames=fra-*, os=linux (one of each of these), or
    /// expression=device.isEphemeral. May be repeated.
    #[arg(long = "select", value_name = "PART=VALUE")]
    pub parts: Vec<String>,
}

impl SelectArgs {
    /// The selector; without any part it fits every device of the tailnet itself.
    pub fn selector(&self) -> Result<Selector, String> {
        if self.parts.is_empty() {
            return Ok(Selector::default());
        }
        let mut selector = DeviceSelector {
            // Who asks sees what is selected, and sends nothing.
            trust_claims: Some(true),
            ..DeviceSelector::default()
        };
        for part in &self.parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name == "expression" {
                // Two are asked for as both of them.
                let before = selector.expression.take();
                selector.expression = Some(match before {
                    Some(before) => format!("({before}) && ({value})"),
                    None => value.to_owned(),
                });
                continue;
            }
            let values = match name {
                "tags" => &mut selector.tags,
                "users" => &mut selector.users,
                "hostnames" => &mut selector.hostnames,
                "os" => &mut selector.os,
                _ => {
                    return Err(format!(
                        "--select {part}: write PART=VALUE, with PART one of tags, users, \
                         hostnames, os and expression, such as tags=tag:router"
                    ));
                }
            };
            values.get_or_insert_default().push(value.to_owned());
        }
        plan::parse_selector(&selector).map_err(|faults| format!("--select: {}", faults.join("; ")))
    }
}
