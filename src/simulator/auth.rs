//! Authentication and permissions: API keys, OAuth clients, and access tokens.

use std::{collections::HashMap, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::{
    identity::{IssuerKeys, WorkloadIdentity},
    response::Refusal,
    scopes::Scopes,
};

/// An OAuth client that may ask for access tokens.
#[derive(Debug, Clone)]
pub struct OauthClient {
    /// The client id.
    pub id: String,
    /// The client secret.
    pub secret: SecretString,
    /// The scopes that its tokens can have at most.
    pub scopes: Scopes,
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub(super) enum Actor {
    /// A user with an API key, who has all permissions.
    User,
    /// An OAuth client or a federated identity with an access token.
    Client(Scopes),
}

/// The credentials that the simulator accepts, and the access tokens that it issued.
#[derive(Default)]
pub(super) struct Credentials {
    /// If empty, every key of the form `tskey-api-…` is accepted.
    api_keys: Vec<SecretString>,
    /// If empty, every client with a secret of the form `tskey-client-…` is accepted.
    clients: Vec<OauthClient>,
    identities: Vec<WorkloadIdentity>,
    issuer_keys: Option<IssuerKeys>,
    tokens: HashMap<String, Token>,
}

struct Token {
    scopes: Scopes,
    expires: Timestamp,
}

/// A name and a secret from the header `Authorization: Basic`.
struct Basic {
    name: String,
    password: String,
}

const TOKEN_INVALID: &str = "API token invalid";
pub(super) const NOT_PERMITTED: &str =
    "calling actor does not have enough permissions to perform this function";

impl Credentials {
    pub fn new(
        api_keys: Vec<SecretString>,
        clients: Vec<OauthClient>,
        identities: Vec<WorkloadIdentity>,
        issuer_keys: Option<IssuerKeys>,
    ) -> Self {
        Self {
            api_keys,
            clients,
            identities,
            issuer_keys,
            tokens: HashMap::new(),
        }
    }

    /// Finds the caller. Missing, malformed, unknown, and expired credentials are refused alike.
    pub fn actor(&self, headers: &HeaderMap, now: Timestamp) -> Result<Actor, Refusal> {
        // One message for all: the live API does not say what is wrong with a key either.
        let refused = || Refusal::new(StatusCode::UNAUTHORIZED, TOKEN_INVALID);
        let key = api_token(headers).ok_or_else(refused)?;
        match self.tokens.get(&key) {
            // Before the API keys: access tokens have the same prefix, and without a list of keys
            // any would pass.
            Some(token) if token.expires > now => Ok(Actor::Client(token.scopes.clone())),
            None if self.takes_api_key(&key) => Ok(Actor::User),
            Some(_) | None => Err(refused()),
        }
    }

    fn takes_api_key(&self, key: &str) -> bool {
        if self.api_keys.is_empty() {
            return key
                // Clients may check this prefix, so a test with a key of another form would prove
                // little.
                .strip_prefix("tskey-api-")
                .is_some_and(|rest| !rest.is_empty());
        }
        self.api_keys
            .iter()
            .any(|taken| taken.expose_secret() == key)
    }

    /// Finds the scopes of a client that names itself by header or in the form.
    pub fn client_scopes(
        &self,
        headers: &HeaderMap,
        form: &HashMap<String, String>,
    ) -> Result<Scopes, Refusal> {
        // The Go library for OAuth tries both places, and keeps to the one that works.
        basic(headers)
            .or_else(|| {
                Some(Basic {
                    name: form.get("client_id")?.clone(),
                    password: form.get("client_secret")?.clone(),
                })
            })
            .and_then(|client| self.scopes_of(&client))
            .ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, TOKEN_INVALID))
    }

    fn scopes_of(&self, client: &Basic) -> Option<Scopes> {
        if self.clients.is_empty() {
            return client
                .password
                .starts_with("tskey-client-")
                // A new client is useful at once, without options that name it.
                .then(Scopes::all);
        }
        let mut clients = self.clients.iter();
        let known = clients.find(|it| it.id == client.name)?;
        (known.secret.expose_secret() == client.password).then(|| known.scopes.clone())
    }

    /// Finds the scopes of a federated identity by its client id and a token with its audience. The answer
    /// of the live API to an invalid token is unknown, so this one may differ.
    pub fn identity_scopes(
        &self,
        form: &HashMap<String, String>,
        now: Timestamp,
    ) -> Result<Scopes, Refusal> {
        let refused = |why: &str| Refusal::new(StatusCode::UNAUTHORIZED, why);
        let (Some(client_id), Some(jwt)) = (form.get("client_id"), form.get("jwt")) else {
            // No `grant_type` is required: Tailscale's own client sends none.
            return Err(Refusal::bad_request("client_id and jwt are required"));
        };
        let mut identities = self.identities.iter();
        let identity = identities
            .find(|it| it.client_id == *client_id)
            .ok_or_else(|| refused("there is no federated identity with this client_id"))?;
        identity
            .check(jwt, self.issuer_keys.as_ref(), now)
            .map_err(refused)?;
        Ok(identity.scopes.clone())
    }

    /// Issues an access token.
    pub fn mint(&mut self, scopes: Scopes, now: Timestamp, lifetime_seconds: u32) -> String {
        let token = format!(
            "tskey-api-{:016x}{:016x}",
            fastrand::u64(..),
            fastrand::u64(..)
        );
        let lifetime = SignedDuration::from_secs(lifetime_seconds.into());
        // The switch may make it 0, so that every request needs a new token.
        let expires = now.saturating_add(lifetime).unwrap_or(now);
        self.tokens.insert(token.clone(), Token { scopes, expires });
        token
    }

    /// Revokes all issued access tokens. They stay known, so that none passes for an API key.
    pub fn revoke_tokens(&mut self) {
        for token in self.tokens.values_mut() {
            token.expires = Timestamp::MIN;
        }
    }
}

impl Actor {
    /// Whether the actor has a scope. A user has all.
    pub fn may(&self, scope: &str) -> bool {
        match self {
            Self::User => true,
            Self::Client(scopes) => scopes.include(scope),
        }
    }

    pub fn is_user(&self) -> bool {
        matches!(self, Self::User)
    }
}

impl FromStr for OauthClient {
    type Err = String;

    /// Parses `ID:SECRET` or `ID:SECRET:SCOPE,SCOPE…`. Without scopes the client has all.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (id, secret) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if id.is_empty() || secret.is_empty() {
            // The error does not repeat the text: it may contain a secret.
            return Err("expected ID:SECRET or ID:SECRET:SCOPE,SCOPE…".into());
        }
        Ok(Self {
            id: id.to_owned(),
            secret: secret.into(),
            scopes: parts.next().map_or_else(Scopes::all, Scopes::parse),
        })
    }
}

/// The token of a request: as Bearer, or as the user name of Basic with an empty password.
fn api_token(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = credentials(headers, "Bearer") {
        return Some(token.to_owned());
    }
    basic(headers)
        // With a password it is an OAuth client, whose id is no token.
        .filter(|it| it.password.is_empty())
        .map(|it| it.name)
}

fn basic(headers: &HeaderMap) -> Option<Basic> {
    let encoded = credentials(headers, "Basic")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some(Basic {
        name: name.to_owned(),
        password: password.to_owned(),
    })
}

fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (found, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    // RFC 9110: the name of a scheme has no case.
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}
