use std::fmt;

use futures::future::BoxFuture;
use secrecy::SecretString;

/// Gives signed tokens (JWTs) that prove who runs this program, for workload identity federation.
pub trait IdentitySource: fmt::Debug + Send + Sync {
    /// A fresh token. Asked for each time an access token is to be had, so nothing need be kept.
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoIdentity>>;
}

/// Why there is no such token, for people: what was asked of whom, and what helps. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoIdentity(pub String);
