//! Authenticates requests: an API key, or access tokens that are renewed in time.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use super::{
    endpoint::Endpoint,
    error::{Error, Kind},
    identity::{IdentitySource, NoIdentity},
    request::{Body, Request},
    scopes::Scopes,
    transport::Transport,
    wire,
};

/// The credential for the API. White space around secrets is ignored: files tend to end in a newline.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An API access token (`tskey-api-…`).
    ApiKey(SecretString),
    /// An OAuth client. Its tokens live for an hour and are requested when needed.
    OAuth {
        /// The client's id.
        client_id: String,
        /// The client's secret (`tskey-client-…`).
        client_secret: SecretString,
    },
    /// A federated identity: signed tokens of the workload are exchanged for access tokens, which also live
    /// for an hour and are requested when needed.
    WorkloadIdentity {
        /// The identity's client id.
        client_id: String,
        /// Where the workload's tokens come from.
        source: Arc<dyn IdentitySource>,
    },
}

/// A token as it is sent, with its serial number.
#[derive(Clone)]
pub(super) struct Bearer {
    pub secret: SecretString,
    serial: u64,
}

pub(super) enum Auth {
    ApiKey(Bearer),
    Tokens(Box<Tokens>),
}

/// Access tokens, which expire.
pub(super) struct Tokens {
    grant: Grant,
    /// Locked while a token is fetched: other callers wait for this one.
    state: Mutex<State>,
}

/// The way to get access tokens.
enum Grant {
    ClientCredentials(Request),
    Exchange {
        client_id: String,
        source: Arc<dyn IdentitySource>,
    },
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    fetched: u64,
    /// The serial number of the newest token that was accepted.
    accepted: u64,
    failure: Option<(Instant, Error)>,
}

struct Token {
    bearer: Bearer,
    scopes: Option<Scopes>,
    renew_at: Instant,
    expires_at: Instant,
}

/// How long before its end a token is renewed, at most; a token that lives for less than an hour is renewed
/// when a twelfth of its life is left.
const RENEWAL_MARGIN: Duration = Duration::from_mins(5);

/// When to try again if a renewal failed while the old token was still valid.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

/// A token is used for at least this long, unless it is rejected: a token with a reported life of one second
/// must not cost a request for a token at each poll.
const MIN_LIFETIME: Duration = Duration::from_mins(1);

/// No token lives longer; keeps an absurd number from overflowing the clock.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

impl Auth {
    /// `None` if the secret is empty or not valid in a header.
    pub fn new(credential: Credential) -> Option<Self> {
        match credential {
            Credential::ApiKey(secret) => Some(Self::ApiKey(Bearer {
                secret: sendable(&secret)?,
                serial: 0,
            })),
            Credential::OAuth {
                client_id,
                client_secret,
            } => {
                let body = Body::ClientCredentials {
                    client_id: named(&client_id)?,
                    client_secret: sendable(&client_secret)?,
                };
                let request = Request::new(Endpoint::Token, Method::POST, ["oauth", "token"]);
                Some(Self::tokens(Grant::ClientCredentials(request.body(body))))
            }
            Credential::WorkloadIdentity { client_id, source } => {
                let client_id = named(&client_id)?;
                Some(Self::tokens(Grant::Exchange { client_id, source }))
            }
        }
    }

    fn tokens(grant: Grant) -> Self {
        Self::Tokens(Box::new(Tokens {
            grant,
            state: Mutex::default(),
        }))
    }

    /// The token to send. Requests one if needed.
    pub async fn bearer(&self, transport: &Transport) -> Result<Bearer, Error> {
        match self {
            Self::ApiKey(bearer) => Ok(bearer.clone()),
            Self::Tokens(tokens) => tokens.bearer(transport, None).await,
        }
    }

    /// The scopes of the current token; `None` if there is none yet, or its scopes are unknown.
    pub async fn scopes(&self) -> Option<Scopes> {
        match self {
            Self::ApiKey(_) => None,
            Self::Tokens(tokens) => tokens.state.lock().await.token.as_ref()?.scopes.clone(),
        }
    }

    /// The token to send at once; `None` if it must be requested first.
    pub async fn ready(&self) -> Option<Bearer> {
        match self {
            Self::ApiKey(bearer) => Some(bearer.clone()),
            Self::Tokens(tokens) => {
                let state = tokens.state.lock().await;
                // A token that is due for renewal is still valid, and a write must not wait for its
                // successor.
                state
                    .token
                    .as_ref()
                    .filter(|token| Instant::now() < token.expires_at)
                    .map(|token| token.bearer.clone())
            }
        }
    }

    /// Notes that a token was accepted.
    pub async fn accepted(&self, bearer: &Bearer) {
        if let Self::Tokens(tokens) = self {
            let mut state = tokens.state.lock().await;
            state.accepted = state.accepted.max(bearer.serial);
        }
    }

    /// Discards a token that was answered with 401. Returns whether another one may do better: not if this
    /// one was never accepted.
    pub async fn discard(&self, rejected: &Bearer) -> bool {
        // There is only one API key: nothing else can be tried.
        let Self::Tokens(tokens) = self else {
            return false;
        };
        let mut state = tokens.state.lock().await;
        // Another request may have replaced the token since this one was sent.
        state
            .token
            .take_if(|token| token.bearer.serial == rejected.serial);
        state.accepted >= rejected.serial
    }

    /// Another token in place of one that was answered with 401; `None` if there can be no other.
    pub async fn replace(
        &self,
        transport: &Transport,
        rejected: &Bearer,
    ) -> Option<Result<Bearer, Error>> {
        match self {
            Self::ApiKey(_) => None,
            Self::Tokens(tokens) => Some(tokens.bearer(transport, Some(rejected)).await),
        }
    }
}

impl Tokens {
    async fn bearer(
        &self,
        transport: &Transport,
        rejected: Option<&Bearer>,
    ) -> Result<Bearer, Error> {
        let asked_at = Instant::now();
        let mut state = self.state.lock().await;
        if let (Some(token), Some(rejected)) = (&state.token, rejected)
            && token.bearer.serial == rejected.serial
        {
            // Only the rejected token: another caller may have replaced it already.
            state.token = None;
        }
        // Of several callers the first renews, and the others find its token here.
        if let Some(token) = &state.token
            && Instant::now() < token.renew_at
        {
            return Ok(token.bearer.clone());
        }
        // The request failed while this caller waited, so the failure is its answer too. Otherwise a hundred
        // callers would each wait for a timeout of their own.
        if let Some((failed_at, failure)) = &state.failure
            && *failed_at > asked_at
        {
            return Err(failure.clone());
        }
        state.renew(transport, &self.grant).await
    }
}

impl State {
    async fn renew(&mut self, transport: &Transport, grant: &Grant) -> Result<Bearer, Error> {
        match fetch(transport, grant).await {
            Ok(granted) => {
                // The number distinguishes the tokens, so that a late 401 for an earlier one does not
                // discard its successor.
                self.fetched += 1;
                let token = Token::new(granted, self.fetched);
                let bearer = token.bearer.clone();
                self.token = Some(token);
                self.failure = None;
                Ok(bearer)
            }
            Err(error) => {
                let now = Instant::now();
                // The renewal margin exists for this: a token endpoint that fails for a moment stops no
                // request.
                if let Some(token) = &mut self.token
                    && now < token.expires_at
                {
                    warn!(%error, "cannot renew the access token yet; the previous one is still valid");
                    token.renew_at = (now + RENEWAL_RETRY).min(token.expires_at);
                    return Ok(token.bearer.clone());
                }
                self.failure = Some((now, error.clone()));
                Err(error)
            }
        }
    }
}

impl Token {
    fn new(granted: wire::Granted, serial: u64) -> Self {
        let now = Instant::now();
        let life = granted.life.clamp(MIN_LIFETIME, MAX_LIFETIME);
        Self {
            bearer: Bearer {
                secret: granted.token,
                serial,
            },
            // Absent scopes are unknown, not missing: `Client::lacks` then reports none.
            scopes: granted.scopes,
            renew_at: now + life - RENEWAL_MARGIN.min(life / 12),
            expires_at: now + life,
        }
    }
}

async fn fetch(transport: &Transport, grant: &Grant) -> Result<wire::Granted, Error> {
    let granted = async {
        let answer = match grant {
            Grant::ClientCredentials(request) => transport.send(request, None, None).await?,
            Grant::Exchange { client_id, source } => {
                let request = exchange(client_id, source.token().await)?;
                transport.send(&request, None, None).await?
            }
        };
        let granted = wire::granted(&answer)?;
        // The token becomes a header of every request, so an unusable one is an error here, where its
        // source is known.
        match sendable(&granted.token) {
            Some(token) => Ok(wire::Granted { token, ..granted }),
            None => Err(answer.unexpected("the token is empty or not valid in a header")),
        }
    };
    granted.await.map_err(as_credential_failure)
}

/// The request that exchanges a workload's token (`identityfederation.go` of Tailscale's client:
/// this endpoint is not in the API's specification).
fn exchange(client_id: &str, jwt: Result<SecretString, NoIdentity>) -> Result<Request, Error> {
    let path = ["oauth", "token-exchange"];
    let request = Request::new(Endpoint::TokenExchange, Method::POST, path);
    match jwt {
        Ok(jwt) => Ok(request.body(Body::TokenExchange {
            client_id: client_id.to_owned(),
            jwt,
        })),
        Err(NoIdentity(message)) => Err(Error {
            endpoint: request.endpoint,
            request: request.title(),
            kind: Kind::NoIdentity,
            status: None,
            message,
            request_id: None,
            pause: None,
            unknown_outcome: false,
        }),
    }
}

/// A client id, if there is one.
fn named(client_id: &str) -> Option<String> {
    Some(client_id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// A failure of the token request, as the caller of another request gets it.
fn as_credential_failure(mut error: Error) -> Error {
    // The token endpoint refuses the credential. Above all, this is no missing device: a new OAuth client is
    // answered with 404 for a short while.
    if matches!(
        error.kind,
        Kind::Refused
            | Kind::Forbidden
            | Kind::WrongTailnet
            | Kind::NotFound
            | Kind::TagsNotPermitted
    ) {
        error.kind = Kind::CredentialRejected;
    }
    // The other request was not sent.
    error.unknown_outcome = false;
    error
}

/// The secret without white space around it, if it is valid in a header.
fn sendable(secret: &SecretString) -> Option<SecretString> {
    let text = secret.expose_secret().trim();
    (!text.is_empty() && HeaderValue::from_str(text).is_ok()).then(|| text.into())
}
