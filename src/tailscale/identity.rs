use std::fmt;

use futures::future::BoxFuture;
use secrecy::SecretString;

/// A source of signed tokens (JWTs) that prove the identity of the workload, for workload identity
/// federation.
pub trait IdentitySource: fmt::Debug + Send + Sync {
    /// A fresh token. Called each time an access token is needed, so that nothing needs to be cached.
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoIdentity>>;
}

/// Why there is no such token, for people: the request and what to do. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoIdentity(pub String);
