//! What every write to the API server has in common.

use std::time::Duration;

/// The field manager of everything that the controller writes.
pub(in crate::controller) const MANAGER: &str = "tsdp";
/// How long a request may take as a whole. kube's client bounds only the pauses within a response.
pub(in crate::controller) const MAX_WAIT: Duration = Duration::from_secs(5);

/// Names the object that cannot be written, and its namespace, if any.
pub(super) fn unwritable(what: &str, namespace: &str) -> String {
    match namespace {
        "" => format!("{what} cannot be written"),
        namespace => format!("{what} in namespace {namespace} cannot be written"),
    }
}

/// The API server's message, and how to fix the role.
pub(super) fn not_permitted(message: &str) -> String {
    format!("{message}; the controller's role does not allow it: kubectl apply -k deploy")
}
