//! The client of the Tailscale v2 API: typed requests and answers, within a budget.
//!
//! Knows nothing of Kubernetes and decides nothing: the caller decides what to request and how to handle a
//! failure. Two things are done here so that no caller can forget them: every request takes a token from the
//! [`Budget`], which the `Retry-After` of a server stalls; and a read with a transient failure is repeated a
//! few times. A write is never repeated here: its reasons may be gone by then.
//!
//! A write whose reasons may disappear while it waits is sent with a [`Permit`] ([`Client::permitted`]), and
//! one that must not wait at all with a [`Turn`] that was taken before the decision ([`Client::turn`]).
//!
//! The usual environment variables apply to connections: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` (HTTP proxies, not SOCKS), and `SSL_CERT_FILE` and `SSL_CERT_DIR`, which replace the system's
//! CA certificates. Both are read when a client is created.

mod auth;
mod budget;
mod device_list;
mod endpoint;
mod error;
mod identity;
mod invites;
mod json;
pub(crate) mod no_answer;
mod permit;
mod request;
mod response;
mod scopes;
mod settings;
mod transport;
mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;

use crate::model::{
    AttributeKey, Attributes, DesiredAttribute, Device, NodeId, RouteSet, SettingValue, TagSet,
    UnreadableDevices, causes,
};
use auth::{Auth, Bearer};
use budget::Token;
use request::{Body, Request};
use response::Answer;
use transport::Transport;

pub use auth::Credential;
pub use budget::{Bucket, Budget, Haste};
pub use endpoint::Endpoint;
pub use error::{Error, Kind, Retry};
pub use identity::{IdentitySource, NoIdentity};
pub use permit::Permit;
pub use scopes::Ability;
pub use settings::{Observation, Observer, Settings, Timeouts};
pub use wire::{AttributePatch, Routes};

/// A connection to one tailnet. Clones share the budget, the token and the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// The turn for the next request of this clone.
    turn: Arc<Mutex<Option<Turn>>>,
    /// The permit that the writes of this clone need.
    permit: Option<Permit>,
}

struct Inner {
    transport: Transport,
    auth: Auth,
    tailnet: String,
}

/// The right to send one request without waiting for the budget.
#[derive(Debug)]
pub struct Turn(Token);

/// The devices of a tailnet, as one answer of the API lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceList {
    /// All of them, but those whose identity cannot be read.
    pub devices: Vec<Device>,
    /// Those whose identity cannot be read.
    pub skipped: UnreadableDevices,
    /// The API's clock when it answered, if the answer has it.
    pub date: Option<Timestamp>,
}

/// Why there can be no client with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be the address of an API.
    #[error(
        "the API's URL must be http or https and have a host, without user, password, query or \
         fragment: write one such as https://api.tailscale.com"
    )]
    BaseUrl,
    /// The URL has the path that each request adds.
    #[error("found {0} as the API's URL, expected it without /api/v2, which each request adds")]
    ApiPath(String),
    /// The tailnet is not valid in a path.
    #[error(
        "'{0}' is not a valid tailnet: write its id or name, or - for the tailnet of the credential"
    )]
    Tailnet(String),
    /// The credential is empty or has invalid characters.
    #[error(
        "the credential is empty, or has characters (such as a line break) that no request can \
         carry: check how it was stored"
    )]
    Credential,
    /// There is no TLS without CA certificates.
    #[error(
        "cannot create the HTTP client: {0}; check SSL_CERT_FILE, SSL_CERT_DIR and the system's certificates"
    )]
    Http(String),
}

/// Installs the process's cryptography for TLS (ring), unless one is installed already.
///
/// For `main`: kube and reqwest both panic without it. Creating a [`Client`] does it too.
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only if another thread was quicker.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

impl Client {
    /// Sends nothing yet: the first answer tells whether the credential is valid.
    pub fn new(settings: Settings, credential: Credential) -> Result<Self, SetupError> {
        install_crypto_provider();
        let url = &settings.base_url;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !bare {
            return Err(SetupError::BaseUrl);
        }
        if url.path().trim_end_matches('/').ends_with("/api/v2") {
            return Err(SetupError::ApiPath(url.to_string()));
        }
        let tailnet = settings.tailnet.clone();
        // URLs drop dot segments, so the request would go to another path of the API.
        if matches!(tailnet.as_str(), "" | "." | "..") {
            return Err(SetupError::Tailnet(tailnet));
        }
        let auth = Auth::new(credential).ok_or(SetupError::Credential)?;
        let transport = Transport::new(settings)
            .map_err(|error| SetupError::Http(causes(&error.without_url())))?;
        Ok(Self {
            inner: Arc::new(Inner {
                transport,
                auth,
                tailnet,
            }),
            turn: Arc::default(),
            permit: None,
        })
    }

    /// Waits until the budget allows a request; `None` once the client is closed.
    pub async fn turn(&self, haste: Haste) -> Option<Turn> {
        self.inner.transport.token(haste).await.map(Turn)
    }

    /// A client whose next request does not wait for the budget.
    #[must_use]
    pub fn with_turn(&self, turn: Turn) -> Self {
        Self {
            // Clones share a turn, so this one gets its own.
            turn: Arc::new(Mutex::new(Some(turn))),
            ..self.clone()
        }
    }

    /// A client whose write is sent only if the permit holds at that moment, and at most once. A write that
    /// is not sent fails with [`Kind::NotSent`].
    #[must_use]
    pub fn permitted(&self, permit: Permit) -> Self {
        Self {
            permit: Some(permit),
            ..self.clone()
        }
    }

    /// Sends nothing from now on by any clone, not even waiting requests. Requests that were sent are still
    /// answered.
    pub fn close(&self) {
        self.inner.transport.stop();
    }

    /// Whether the other one is a clone of this client.
    #[must_use]
    pub fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    async fn send(&self, request: &Request) -> Result<Answer, Error> {
        // Taken, not copied: a turn pays for one request only, and the next one waits for the budget.
        let turn = self
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let token = turn.map(|Turn(token)| token);
        // A read changes nothing, so it needs no permit.
        match self.permit.as_ref().filter(|_| !request.endpoint.is_read()) {
            Some(permit) => self.inner.send_once(request, token, permit).await,
            None => self.inner.send(request, token).await,
        }
    }

    /// All devices of the tailnet: the complete list, or an error.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        self.list().await.map(|list| list.devices)
    }

    /// All devices of the tailnet with the API's clock: the complete list, or an error.
    pub async fn list(&self) -> Result<DeviceList, Error> {
        let path = ["tailnet", &self.inner.tailnet, "devices"];
        let request = Request::new(Endpoint::Devices, Method::GET, path).all_fields();
        let answer = self.send(&request).await?;
        Ok(DeviceList {
            devices: answer.devices,
            skipped: answer.skipped,
            date: answer.date,
        })
    }

    /// The scopes that the credential is known to lack. Nothing is known of a user's API key, nor of any
    /// credential before its first answer.
    pub async fn lacks(&self) -> BTreeSet<Ability> {
        let scopes = self.inner.auth.scopes().await;
        scopes.map(|scopes| scopes.missing()).unwrap_or_default()
    }

    /// The tags that the tailnet's policy file defines: the keys of `tagOwners`.
    pub async fn tag_owners(&self) -> Result<BTreeSet<String>, Error> {
        let path = ["tailnet", &self.inner.tailnet, "acl"];
        let request = Request::new(Endpoint::TagOwners, Method::GET, path);
        wire::tag_owners(&self.send(&request).await?)
    }

    /// One device, as the list shows it.
    pub async fn device(&self, id: &NodeId) -> Result<Device, Error> {
        let path = ["device", id.as_str()];
        let request = Request::new(Endpoint::Device, Method::GET, path).all_fields();
        wire::device(&self.send(&request).await?)
    }

    /// Deletes a device.
    pub async fn delete(&self, id: &NodeId) -> Result<(), Error> {
        let path = ["device", id.as_str()];
        let request = Request::new(Endpoint::DeleteDevice, Method::DELETE, path);
        self.send(&request).await.map(drop)
    }

    /// Expires a device's key.
    pub async fn expire_key(&self, id: &NodeId) -> Result<(), Error> {
        let path = ["device", id.as_str(), "expire"];
        let request = Request::new(Endpoint::ExpireKey, Method::POST, path);
        self.send(&request).await.map(drop)
    }

    /// The routes of one device.
    pub async fn routes(&self, id: &NodeId) -> Result<Routes, Error> {
        let path = ["device", id.as_str(), "routes"];
        let request = Request::new(Endpoint::Routes, Method::GET, path);
        wire::routes(&self.send(&request).await?)
    }

    /// Replaces the enabled routes, including those of an exit node.
    pub async fn set_routes(&self, id: &NodeId, routes: &RouteSet) -> Result<Routes, Error> {
        let body = json!({ "routes": routes });
        let answer = self.post(Endpoint::SetRoutes, id, "routes", body).await?;
        wire::routes(&answer)
    }

    /// Sets a setting that is one value. A key that expires again has its previous expiry; another address
    /// breaks the connections of the device.
    pub async fn set(&self, id: &NodeId, value: &SettingValue) -> Result<(), Error> {
        let setting = value.setting();
        self.post(
            Endpoint::Set(setting),
            id,
            setting.path(),
            wire::setting(value),
        )
        .await
        .map(drop)
    }

    /// Replaces the tags.
    pub async fn set_tags(&self, id: &NodeId, tags: &TagSet) -> Result<(), Error> {
        let body = json!({ "tags": tags });
        self.post(Endpoint::SetTags, id, "tags", body)
            .await
            .map(drop)
    }

    /// The custom posture attributes of one device.
    pub async fn attributes(&self, id: &NodeId) -> Result<Attributes, Error> {
        let path = ["device", id.as_str(), "attributes"];
        let request = Request::new(Endpoint::Attributes, Method::GET, path);
        wire::attributes(&self.send(&request).await?)
    }

    /// Sets one attribute. Without an expiry, it clears the previous one.
    pub async fn set_attribute(
        &self,
        id: &NodeId,
        key: &AttributeKey,
        desired: &DesiredAttribute,
    ) -> Result<(), Error> {
        let mut body = json!({ "value": desired.value });
        if let Some(expiry) = desired.expiry {
            body["expiry"] = json!(expiry);
        }
        let path = ["device", id.as_str(), "attributes", key.as_str()];
        let request = Request::new(Endpoint::SetAttribute, Method::POST, path);
        self.send(&request.body(Body::Json(body))).await.map(drop)
    }

    /// Deletes one attribute.
    pub async fn delete_attribute(&self, id: &NodeId, key: &AttributeKey) -> Result<(), Error> {
        let path = ["device", id.as_str(), "attributes", key.as_str()];
        let request = Request::new(Endpoint::DeleteAttribute, Method::DELETE, path);
        self.send(&request).await.map(drop)
    }

    /// Sets and deletes attributes of many devices at once. It is undocumented whether a part is done if the
    /// whole fails.
    pub async fn patch_attributes(&self, changes: &AttributePatch) -> Result<(), Error> {
        let path = ["tailnet", &self.inner.tailnet, "device-attributes"];
        let request = Request::new(Endpoint::PatchAttributes, Method::PATCH, path);
        let body = Body::Json(wire::attribute_patch(changes));
        self.send(&request.body(body)).await.map(drop)
    }

    /// `POST /device/{id}/{what}`
    async fn post(
        &self,
        endpoint: Endpoint,
        id: &NodeId,
        what: &str,
        body: serde_json::Value,
    ) -> Result<Answer, Error> {
        let request = Request::new(endpoint, Method::POST, ["device", id.as_str(), what]);
        self.send(&request.body(Body::Json(body))).await
    }
}

impl Inner {
    /// Sends a request with an access token; with another one if the first is no longer valid.
    async fn send(&self, request: &Request, token: Option<Token>) -> Result<Answer, Error> {
        let bearer = self.auth.bearer(&self.transport).await?;
        let outcome = self
            .transport
            .send(request, Some(&bearer.secret), token)
            .await;
        if !outcome
            .as_ref()
            .is_err_and(|error| error.kind == Kind::CredentialRejected)
        {
            self.note_accepted(&outcome, &bearer).await;
            return outcome;
        }
        match self.auth.replace(&self.transport, &bearer).await {
            Some(other) => {
                let other = other?;
                // The first try has used the caller's token of the budget.
                let outcome = self
                    .transport
                    .send(request, Some(&other.secret), None)
                    .await;
                self.note_accepted(&outcome, &other).await;
                outcome
            }
            None => outcome,
        }
    }

    /// Sends a write once, while its permit holds. If the access token is no longer valid, the write is not
    /// repeated with another one: the caller decides again once there is one.
    async fn send_once(
        &self,
        request: &Request,
        token: Option<Token>,
        permit: &Permit,
    ) -> Result<Answer, Error> {
        // A valid token is used even if it is due for renewal: a renewal would delay the write, and its
        // reasons may be gone by then.
        let bearer = match self.auth.ready().await {
            Some(bearer) => bearer,
            None => self.auth.bearer(&self.transport).await?,
        };
        let token = if token.is_some() {
            token
        } else {
            tokio::select! {
                biased;
                // A revoked write leaves the token to other requests.
                () = permit.revoked() => None,
                token = self.transport.token(Haste::Quick) => token,
            }
        };
        let token = token.ok_or_else(|| transport::not_sent(request, transport::STOPPED))?;
        let outcome = self
            .transport
            .send_once(request, &bearer.secret, token, permit)
            .await;
        match outcome {
            Err(error) if error.kind == Kind::CredentialRejected => {
                // A token that was accepted before has only expired; one that never was points to a
                // wrong credential.
                Err(if self.auth.discard(&bearer).await {
                    transport::not_sent(request, "its access token was no longer valid")
                } else {
                    error
                })
            }
            outcome => {
                self.note_accepted(&outcome, &bearer).await;
                outcome
            }
        }
    }

    async fn note_accepted(&self, outcome: &Result<Answer, Error>, bearer: &Bearer) {
        // A failure proves nothing about the token: its answer may come from something in between.
        if outcome.is_ok() {
            self.auth.accepted(bearer).await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tailnet", &self.inner.tailnet)
            .finish_non_exhaustive()
    }
}
