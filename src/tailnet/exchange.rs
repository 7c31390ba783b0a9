//! Sends the engine's requests with the client, and turns the client's errors into failures.

use std::collections::BTreeMap;

use super::{Answer, Failure, Request, Retry};
use tracing::debug;

use crate::{
    model::{AttributeKey, DesiredAttribute, NodeId, Reason},
    plan::{AttributeWrites, Call},
    tailscale::{self, Client, Kind},
};

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was answered, or the answer was lost.
    Answered(Result<Answer, Failure>),
    /// It was not sent and has no effect.
    NotSent,
}

/// Sends one request.
pub(super) async fn send(client: &Client, request: &Request) -> Outcome {
    let answer = match request {
        Request::Devices => match client.list().await {
            Ok(list) => {
                let (devices, unreadable) = (list.devices.len(), list.skipped.total);
                debug!(devices, unreadable, "poll");
                Ok(Answer::Devices {
                    devices: list.devices,
                    skipped: list.skipped,
                    date: list.date,
                    lacks: client.lacks().await,
                })
            }
            Err(error) => Err(error),
        },
        Request::Device(id) => client
            .device(id)
            .await
            .map(|device| Answer::Device(Box::new(device))),
        Request::Routes(id) => client
            .routes(id)
            .await
            .map(|routes| Answer::Routes(routes.enabled)),
        Request::Attributes(id) => client.attributes(id).await.map(Answer::Attributes),
        Request::Write(call) => write(client, call).await.map(|()| Answer::Written),
    };
    match answer {
        Err(error) if error.kind() == Kind::NotSent => Outcome::NotSent,
        answer => Outcome::Answered(answer.map_err(|error| match request {
            Request::Devices => of_list(&error),
            _ => Failure::from(&error),
        })),
    }
}

/// A failed list concerns the connection: no device is missing, and no edit of a policy helps.
fn of_list(error: &tailscale::Error) -> Failure {
    let failure = Failure::from(error);
    match error.kind() {
        Kind::NotFound | Kind::Refused => Failure {
            reason: Reason::ApiError,
            message: format!(
                "{} Check spec.apiURL and spec.tailnet of the TailscaleTailnet.",
                failure.message
            ),
            // No policy has to be edited, so the list is tried again.
            retry: match failure.retry {
                Retry::Never => Retry::Later,
                retry => retry,
            },
            ..failure
        },
        // A list sets no tags and needs no plan, so no edit of a policy helps.
        Kind::PlanRefused | Kind::TagsNotPermitted => Failure {
            reason: Reason::ApiError,
            retry: Retry::Later,
            ..failure
        },
        _ => failure,
    }
}

async fn write(client: &Client, call: &Call) -> Result<(), tailscale::Error> {
    match call {
        Call::Set(id, value) => client.set(id, value).await,
        Call::SetTags(id, tags) => client.set_tags(id, tags).await,
        Call::SetRoutes(id, routes) => client.set_routes(id, routes).await.map(|_| ()),
        Call::ExpireKey(id) => client.expire_key(id).await,
        Call::Delete(id) => client.delete(id).await,
        // What the API does if a part of a batch fails is not documented, so a single entry has its own request.
        Call::WriteAttributes(patch) => match only_entry(patch) {
            Some((id, key, Some(desired))) => client.set_attribute(id, key, desired).await,
            Some((id, key, None)) => client.delete_attribute(id, key).await,
            None => client.patch_attributes(patch).await,
        },
    }
}

/// The entry of a patch that has exactly one.
fn only_entry(
    patch: &BTreeMap<NodeId, AttributeWrites>,
) -> Option<(&NodeId, &AttributeKey, Option<&DesiredAttribute>)> {
    let mut entries = patch.iter().flat_map(|(id, writes)| {
        writes
            .iter()
            .map(move |(key, desired)| (id, key, desired.as_ref()))
    });
    let first = entries.next()?;
    entries.next().is_none().then_some(first)
}

impl From<&tailscale::Error> for Failure {
    fn from(error: &tailscale::Error) -> Self {
        let reason = match error.kind() {
            Kind::Unreachable => Reason::ApiUnreachable,
            Kind::CredentialRejected => Reason::CredentialRejected,
            Kind::NoIdentity => Reason::CredentialsMissing,
            Kind::Forbidden | Kind::WrongTailnet => Reason::Forbidden,
            Kind::PlanRefused => Reason::PlanRefused,
            Kind::NotFound => Reason::DeviceNotFound,
            Kind::RateLimited => Reason::RateLimited,
            Kind::AddressInUse => Reason::AddressInUse,
            Kind::NameTaken => Reason::NameTaken,
            Kind::TagsNotPermitted => Reason::TagsNotPermitted,
            Kind::Refused => Reason::Refused,
            Kind::ServerError | Kind::UnexpectedAnswer => Reason::ApiError,
            Kind::UnreadableDevice => Reason::DeviceUnreadable,
            Kind::NotSent => Reason::TailnetUnavailable,
        };
        Failure {
            reason,
            message: error.to_string(),
            retry: retry(error),
            unknown_outcome: error.unknown_outcome(),
        }
    }
}

/// The client tells whether the same request can succeed. Here it matters whether it can succeed without an
/// edit of the policy: a credential is replaced, a name is freed, a device comes back.
fn retry(error: &tailscale::Error) -> Retry {
    match (error.kind(), error.retry()) {
        (_, tailscale::Retry::After(pause)) => Retry::After(pause),
        (Kind::TagsNotPermitted | Kind::Refused | Kind::PlanRefused, tailscale::Retry::Never) => {
            Retry::Never
        }
        // Another person may free the name, or replace the credential.
        _ => Retry::Later,
    }
}

/// The failure of a request when the credential was removed or the lead was lost a moment ago.
pub(super) fn disconnected() -> Failure {
    Failure {
        reason: Reason::TailnetUnavailable,
        message: "The tailnet has no connection, or this process no longer leads.".to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    }
}
