//! The list of everything in a cluster that is pending approval.

use kube::{Api, Client, ResourceExt as _, api::ListParams};

use super::waiting::Waiting;
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy},
    cli::{
        output::{self, printable},
        process::AnyError,
        server_error,
        table::{Style, lines},
    },
};

/// Prints it.
pub(super) async fn run(
    client: &Client,
    namespace: Option<&str>,
    style: Style,
) -> Result<(), AnyError> {
    // Guarded: one policy that cannot be parsed must not fail the list for everybody.
    let policies: Api<DeserializeGuard<TailscaleDevicePolicy>> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let listed = policies
        .list(&ListParams::default())
        .await
        .map_err(server_error::of)?;
    let mut readable = Vec::new();
    for object in listed.items {
        let name = format!(
            "{}/{}",
            object.namespace().unwrap_or_default(),
            object.name_any()
        );
        match object.0 {
            Ok(policy) => readable.push(policy),
            Err(unreadable) => eprintln!(
                "tsdp: the list lacks {}, which cannot be parsed: {}",
                printable(&name),
                printable(&unreadable.error)
            ),
        }
    }
    output::print(&table(&readable, style))?;
    Ok(())
}

fn table(policies: &[TailscaleDevicePolicy], style: Style) -> String {
    let mut table = style.table(["NAMESPACE", "NAME", "APPROVAL", "CHANGES", "DEVICES"]);
    for policy in policies {
        let (entry, changes, devices) = match Waiting::of(policy) {
            Ok(Waiting::Plan {
                hash,
                by_limit,
                plan,
                ..
            }) => {
                let by = if by_limit { " (limit)" } else { "" };
                let counts = (plan.changes.to_string(), plan.devices.to_string());
                (format!("plan:{hash}{by}"), counts.0, counts.1)
            }
            Ok(Waiting::Device(_)) => ("node:…".to_owned(), String::new(), String::new()),
            // A status of an earlier spec has no plan that could be approved now.
            Ok(Waiting::Nothing(_)) | Err(_) => continue,
        };
        table.add_row([
            policy.namespace().unwrap_or_default(),
            policy.name_any(),
            entry,
            changes,
            devices,
        ]);
    }
    // A header without rows would look like a list that was cut off.
    if table.is_empty() {
        return "Nothing is pending approval.\n".to_owned();
    }
    lines(&table) + "\n"
}
