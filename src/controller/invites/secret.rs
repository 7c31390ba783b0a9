//! The Secret with an invite's URL.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use crate::{
    api::TailscaleDeviceInvite,
    controller::write::api_server::{MANAGER, MAX_WAIT},
    model::Invite,
};

/// The key of the URL.
const URL: &str = "url";
/// The invite that the URL belongs to: so a reconcile need not read the URL.
const INVITE_ID: &str = "tailnet.dev/invite-id";

/// Why a Secret does not hold the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// Someone else's Secret has the name.
    #[error(
        "the Secret {0} exists and does not belong to this invite. The controller does not change it. Delete it, or \
         create another TailscaleDeviceInvite with another secretName."
    )]
    NotOurs(String),
    /// A role is missing.
    #[error(
        "the controller may not write the Secret {place}: {message}. Apply the role of deploy/components/invites."
    )]
    Forbidden {
        /// The Secret.
        place: String,
        /// The API server's words.
        message: String,
    },
    /// The API server refuses for another reason, or cannot be reached.
    #[error("the Secret {0} cannot be written: {1}.")]
    Unwritable(String, #[source] kube::Error),
    /// It takes too long.
    #[error("the Secret {0} was not written in time.")]
    NotInTime(String),
}

/// Ensures that the Secret exists; otherwise returns the reason, for people.
///
/// People who may create invites need not have access to Secrets, so a Secret that does not belong
/// to this object is left alone: otherwise they could overwrite it with our permissions, and delete
/// it with the object.
pub(super) async fn keep(
    client: &Client,
    object: &TailscaleDeviceInvite,
    invite: &Invite,
) -> Result<(), SecretError> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.secret_name();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let place = format!("{namespace}/{name}");
    // Metadata only: the controller needs neither the URL nor the data of someone else's Secret.
    let found = bounded(&place, secrets.get_metadata_opt(name)).await?;
    let Some(found) = found else {
        let made = secret(object, invite);
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        // An apply would take over a Secret that someone else has created meanwhile; this fails.
        return bounded(&place, secrets.create(&params, &made))
            .await
            .map(drop);
    };
    let owners = found.owner_references();
    if !object
        .uid()
        .is_some_and(|uid| owners.iter().any(|owner| owner.uid == uid))
    {
        return Err(SecretError::NotOurs(place));
    }
    if found.annotations().get(INVITE_ID) == Some(&invite.id) {
        return Ok(());
    }
    let mut changed = secret(object, invite);
    // Refused should another Secret of the name have taken the place of this one.
    changed.metadata.uid = found.uid();
    // Forced: a manual edit of the URL does not make it someone else's.
    let params = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&changed);
    let patched = secrets.patch(name, &params, &patch);
    bounded(&place, patched).await.map(drop)
}

fn secret(object: &TailscaleDeviceInvite, invite: &Invite) -> Secret {
    let url = ByteString(invite.url.expose_secret().as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(object.secret_name().to_owned()),
            namespace: object.namespace(),
            annotations: Some(BTreeMap::from([(INVITE_ID.to_owned(), invite.id.clone())])),
            owner_references: object.owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(URL.to_owned(), url)])),
        ..Secret::default()
    }
}

async fn bounded<T>(
    place: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, SecretError> {
    let place = place.to_owned();
    match timeout(MAX_WAIT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(answer))) if answer.is_forbidden() => {
            let message = answer.message.clone();
            Err(SecretError::Forbidden { place, message })
        }
        Ok(Err(error)) => Err(SecretError::Unwritable(place, error)),
        Err(_) => Err(SecretError::NotInTime(place)),
    }
}
