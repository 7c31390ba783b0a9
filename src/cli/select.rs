//! The selection of devices by `--select`.

use clap::Args;

use crate::{api::DeviceSelector, convert, plan::Selector};

/// The fields of a policy's `deviceSelector` as flags.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SelectArgs {
    /// Select devices as the deviceSelector of a policy does: tags=tag:router (a device has all of the
    /// tags), users=*@example.com, hostnames=fra-*, os=linux (a device matches one of the values), or
    /// expression=device.isEphemeral. May be repeated.
    #[arg(long = "select", value_name = "PART=VALUE")]
    pub parts: Vec<String>,
}

impl SelectArgs {
    /// The selector. Without any part it matches every device of the tailnet itself.
    pub fn selector(&self) -> Result<Selector, SelectError> {
        if self.parts.is_empty() {
            return Ok(Selector::default());
        }
        let mut selector = DeviceSelector {
            // Safe: the result is only shown, and devices gain nothing by false claims.
            trust_claims: Some(true),
            ..DeviceSelector::default()
        };
        for part in &self.parts {
            // At the first =, as an expression contains others.
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name == "expression" {
                // Repeated expressions must all hold.
                let before = selector.expression.take();
                selector.expression = Some(match before {
                    // In parentheses, as either may contain `||`.
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
                    return Err(SelectError::UnknownPart(part.clone()));
                }
            };
            values.get_or_insert_default().push(value.to_owned());
        }
        convert::selector(&selector).map_err(SelectError::Invalid)
    }
}

/// Why `--select` selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectError {
    /// It names no part of a selector.
    #[error(
        "--select {0}: expected PART=VALUE, with PART one of tags, users, hostnames, os and expression, such as \
         tags=tag:router"
    )]
    UnknownPart(String),
    /// The selector is not valid.
    #[error("--select: {}", .0.join("; "))]
    Invalid(Vec<String>),
}
