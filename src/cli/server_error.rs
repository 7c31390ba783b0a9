//! Failures of a cluster in the words of kubectl.

use std::fmt;

use super::output::printable;
use crate::model::causes;

/// The answer of an API server that refuses a request, as kubectl prints it.
#[derive(Debug)]
pub(super) struct ServerError {
    reason: String,
    message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = printable(&self.message);
        match self.reason.as_str() {
            "" => write!(f, "Error from server: {message}"),
            reason => write!(f, "Error from server ({}): {message}", printable(reason)),
        }
    }
}

impl std::error::Error for ServerError {}

/// Why a request to a cluster failed.
pub(super) fn of(error: kube::Error) -> Box<dyn std::error::Error> {
    match error {
        kube::Error::Api(status) => Box::new(ServerError {
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        other => format!("cannot reach the cluster: {}", printable(&causes(&other))).into(),
    }
}
