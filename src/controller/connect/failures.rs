//! Why a tailnet is not connected, as its policies report it.

use crate::{
    api::Reason,
    model::Refused,
    tailnet::{Failure, Retry},
    tailscale::SetupError,
};

/// Until the credential has been read.
pub(in crate::controller) fn connecting() -> Failure {
    failure(
        Reason::Progressing,
        "The controller is connecting.".to_owned(),
        Retry::Later,
    )
}

pub(in crate::controller) fn invalid_tailnet(refused: Refused) -> Failure {
    failure(Reason::Invalid, refused.0, Retry::Never)
}

pub(in crate::controller) fn no_tailnet(name: &str) -> Failure {
    let message = format!(
        "There is no TailscaleTailnet '{name}'. Nothing is sent. Create it, or correct \
         spec.tailnetRef."
    );
    failure(Reason::TailnetNotFound, message, Retry::Later)
}

pub(in crate::controller) fn unreadable_tailnet(name: &str, error: &str) -> Failure {
    let message = format!(
        "The TailscaleTailnet '{name}' cannot be parsed: {error}. Nothing is sent. Correct it."
    );
    failure(Reason::Invalid, message, Retry::Never)
}

/// Settings or a credential from which no client can be built: only an edit helps, except for the
/// system's certificates.
pub(super) fn unusable(place: &str, error: &SetupError) -> Failure {
    match error {
        SetupError::BaseUrl | SetupError::ApiPath(_) => failure(
            Reason::Invalid,
            format!("spec.apiURL: {error}"),
            Retry::Never,
        ),
        SetupError::Tailnet(_) => failure(
            Reason::Invalid,
            format!("spec.tailnet: {error}"),
            Retry::Never,
        ),
        SetupError::Credential => {
            // Not retried: an edit of the Secret connects again by itself.
            let message = format!("The Secret {place}: {error}.");
            failure(Reason::CredentialsMissing, message, Retry::Never)
        }
        SetupError::Http(_) => failure(Reason::ApiUnreachable, error.to_string(), Retry::Later),
    }
}

pub(super) fn unread(place: &str, error: &str) -> Failure {
    let message = format!("The Secret {place} cannot be read: {error}.");
    failure(Reason::CredentialsMissing, message, Retry::Later)
}

pub(super) fn missing(place: &str) -> Failure {
    let (namespace, name) = place.split_once('/').unwrap_or_default();
    let message = format!(
        "There is no Secret {place}. Create it: kubectl -n {namespace} create secret generic {name} \
         --from-literal=api_key=tskey-api-…"
    );
    failure(Reason::CredentialsMissing, message, Retry::Later)
}

pub(super) fn failure(reason: Reason, message: String, retry: Retry) -> Failure {
    Failure {
        reason,
        message,
        retry,
        // Nothing was sent, so nothing can have taken effect.
        unknown_outcome: false,
    }
}
