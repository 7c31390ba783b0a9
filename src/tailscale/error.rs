use std::{fmt, time::Duration};

use reqwest::StatusCode;

use super::endpoint::Endpoint;

/// Why a request failed, with what a user needs to act on it.
///
/// Contains no credential: texts from outside are scrubbed before.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    pub(super) endpoint: Endpoint,
    pub(super) request: String,
    pub(super) kind: Kind,
    pub(super) status: Option<StatusCode>,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
    pub(super) pause: Option<Duration>,
    pub(super) unknown_outcome: bool,
}

/// The kind of failure, out of a bounded set: fit for the reason of a condition or the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No complete answer: no connection, a timeout, or a broken connection.
    Unreachable,
    /// 401, or a refused token request: the credential is wrong, expired or revoked.
    CredentialRejected,
    /// The workload has no token to prove its identity: nothing was sent.
    NoIdentity,
    /// 403: the API does not permit this request, most often because the credential lacks an OAuth scope.
    Forbidden,
    /// The credential is of another tailnet than the one that was asked for.
    WrongTailnet,
    /// The tailnet's plan does not have the feature.
    PlanRefused,
    /// 404 in the API's own words: no such device, or one that cannot be managed from this tailnet.
    NotFound,
    /// Another 4xx: the API refuses the request.
    Refused,
    /// 429.
    RateLimited,
    /// Another device has the IPv4 address.
    AddressInUse,
    /// Another device has the name, or had it until recently.
    NameTaken,
    /// A tag is not in the tailnet's `tagOwners`, or the credential does not own it.
    TagsNotPermitted,
    /// Another 5xx.
    ServerError,
    /// An answer that is not of this API: HTML, invalid JSON, a wrong shape, a redirect.
    UnexpectedAnswer,
    /// An answer about one device with a content that cannot be read: another version of the API, or an odd
    /// device. It says nothing about any other request.
    UnreadableDevice,
    /// The request was not sent: the program ends, or the reasons for it no longer held.
    NotSent,
}

/// Whether the same request can succeed at another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before something else is changed: the policy, the credential, or what the tailnet permits.
    Never,
    /// It may succeed later.
    Later,
    /// The server asked to be called no earlier than after this time.
    After(Duration),
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same request can succeed at another time.
    #[must_use]
    pub fn retry(&self) -> Retry {
        if let Some(pause) = self.pause {
            return Retry::After(pause);
        }
        match self.kind {
            // 501 Not Implemented does not pass, unlike the other failures of a server.
            Kind::ServerError if self.status == Some(StatusCode::NOT_IMPLEMENTED) => Retry::Never,
            Kind::Unreachable
            | Kind::NoIdentity
            | Kind::RateLimited
            | Kind::ServerError
            | Kind::UnexpectedAnswer
            | Kind::UnreadableDevice
            | Kind::NotSent
            // A device that gives up an address or a name frees it; a name only after a while.
            | Kind::AddressInUse
            | Kind::NameTaken => Retry::Later,
            Kind::Refused if is_passing_refusal(self.status) => Retry::Later,
            // A new OAuth client is unknown (404) or lacks its scopes (403) for a short while.
            Kind::CredentialRejected
                if matches!(
                    self.status,
                    Some(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
                ) =>
            {
                Retry::Later
            }
            Kind::CredentialRejected
            | Kind::Forbidden
            | Kind::WrongTailnet
            | Kind::PlanRefused
            | Kind::NotFound
            | Kind::Refused
            | Kind::TagsNotPermitted => Retry::Never,
        }
    }

    /// Whether the request may have taken effect although it failed: the answer was lost, or came from
    /// something in between.
    #[must_use]
    pub fn unknown_outcome(&self) -> bool {
        self.unknown_outcome
    }

    /// The method and path, such as `POST /device/n1/tags`.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status.map(|status| status.as_u16())
    }

    /// The API's message, or what was found instead of an answer.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The API's id of the request, for Tailscale's support.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Whether the same request, at once or after a moment, has a good chance.
    pub(super) fn is_transient(&self) -> bool {
        match self.kind {
            Kind::Unreachable | Kind::RateLimited => true,
            Kind::ServerError => self.status != Some(StatusCode::NOT_IMPLEMENTED),
            // An unexpected answer would come again.
            _ => false,
        }
    }
}

/// Request Timeout and Conflict concern the moment, not the request.
fn is_passing_refusal(status: Option<StatusCode>) -> bool {
    matches!(
        status,
        Some(StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT)
    )
}

impl Kind {
    /// The name as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::CredentialRejected => "credential_rejected",
            Self::NoIdentity => "no_identity",
            Self::Forbidden => "forbidden",
            Self::WrongTailnet => "wrong_tailnet",
            Self::PlanRefused => "plan_refused",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::AddressInUse => "address_in_use",
            Self::NameTaken => "name_taken",
            Self::TagsNotPermitted => "tags_not_permitted",
            Self::ServerError => "server_error",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::UnreadableDevice => "unreadable_device",
            Self::NotSent => "not_sent",
        }
    }

    /// Classifies an error answer.
    ///
    /// `message` is the API's message, `None` if the body is not the API's own. The live API answers with
    /// these texts; if they change, the status still counts.
    pub(super) fn of(status: StatusCode, message: Option<&str>) -> Self {
        let says = |text: &str| message.is_some_and(|message| message.contains(text));
        if says("address already in use") {
            return Self::AddressInUse;
        }
        // Reported with "user tailnet does not match"; the status is not documented.
        if says("tailnet does not match") || says("tailnet not found") {
            return Self::WrongTailnet;
        }
        match status.as_u16() {
            401 => Self::CredentialRejected,
            402 => Self::PlanRefused,
            400 | 403 if says("current billing plan") || says("current plan") => Self::PlanRefused,
            403 => Self::Forbidden,
            400 if says("requested tags") => Self::TagsNotPermitted,
            400 if says("is already taken") => Self::NameTaken,
            // A caller may conclude that the device is gone. Only the API's own words allow that, not those
            // of a proxy, or of a server with other paths.
            404 if message.is_none() || says("page not found") => Self::UnexpectedAnswer,
            404 => Self::NotFound,
            429 => Self::RateLimited,
            400..=499 => Self::Refused,
            500..=599 => Self::ServerError,
            _ => Self::UnexpectedAnswer,
        }
    }

    /// What it means and, if someone can fix it, how.
    fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "",
            Self::CredentialRejected => {
                "the credential was rejected; check that it is right, not expired, and not revoked"
            }
            Self::NoIdentity => "there is no token to exchange",
            Self::Forbidden => "the API does not permit this",
            Self::WrongTailnet => {
                "the credential is of another tailnet, set spec.tailnet (or --tailnet) to that one, or to \
                 \"-\" for the credential's own"
            }
            Self::PlanRefused => "the tailnet's plan does not permit this",
            Self::NotFound => "not found",
            Self::Refused => "refused",
            Self::RateLimited => "too many requests",
            Self::AddressInUse => "another device has this address",
            Self::NameTaken => "another device has this name, or had it until recently",
            Self::TagsNotPermitted => {
                "each tag must be in tagOwners of the tailnet's policy file and be owned by the \
                 credential"
            }
            Self::ServerError => "the server failed",
            Self::UnexpectedAnswer => "the response does not come from the Tailscale API",
            Self::UnreadableDevice => "the API reports the device in a form that cannot be read",
            Self::NotSent => "not sent",
        }
    }
}

/// Whether the API refuses a request because of the credential. The live API answers with "calling actor does
/// not have enough permissions to perform this function".
fn lacks_permission(message: &str) -> bool {
    ["permission", "scope"]
        .iter()
        .any(|word| message.contains(word))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match (self.kind, self.endpoint) {
            // There is no secret that could be wrong, only the configuration of the two sides.
            (Kind::CredentialRejected, Endpoint::TokenExchange) => {
                "the workload's identity was rejected; check that client_id and audience are those \
                 of a federated identity in the admin console, and that its issuer and subject are \
                 those of this workload"
            }
            (Kind::Forbidden, _) if lacks_permission(&self.message) => {
                "the credential does not permit this"
            }
            (kind, _) => kind.sentence(),
        };
        f.write_str(&self.request)?;
        // The message of an unreachable API says it all.
        if !sentence.is_empty() {
            write!(f, ": {sentence}")?;
        }
        // Another text, such as that of tailnet lock, has nothing to do with scopes.
        if self.kind == Kind::Forbidden && lacks_permission(&self.message) {
            write!(f, " (it needs {})", self.endpoint.needs())?;
        }
        write!(f, ": {}", self.message)?;
        match (self.status, &self.request_id) {
            (Some(status), Some(id)) => write!(f, " (HTTP {}, request {id})", status.as_u16()),
            (Some(status), None) => write!(f, " (HTTP {})", status.as_u16()),
            (None, _) => Ok(()),
        }
    }
}
