//! Workload identity federation: exchanges signed tokens (JWTs) of other issuers.

use std::str::FromStr;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, de::DeserializeOwned};

use super::scopes::Scopes;

/// A federated identity of the tailnet.
#[derive(Debug, Clone)]
pub struct WorkloadIdentity {
    /// Its client id.
    pub client_id: String,
    /// The audience that tokens must be for.
    pub audience: String,
    /// The scopes of the access tokens that it gets.
    pub scopes: Scopes,
}

/// The public keys of a token issuer (a JSON Web Key Set). Only RSA is supported.
#[derive(Debug, Clone, Deserialize)]
pub struct IssuerKeys {
    keys: Vec<Key>,
}

/// Members that only other kinds of keys have, or that do not matter here, are ignored.
#[derive(Debug, Clone, Deserialize)]
struct Key {
    kid: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl WorkloadIdentity {
    /// Checks that a token is valid now and has the audience of this identity. Without `keys` the signature
    /// is not checked.
    pub(super) fn check(
        &self,
        jwt: &str,
        keys: Option<&IssuerKeys>,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let parts: Vec<_> = jwt.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err("the JWT does not have three parts");
        };
        let claims: Claims = decode(claims).ok_or("the JWT's claims cannot be read")?;
        let header: Header = decode(header).ok_or("the JWT's header cannot be read")?;
        // Before the claims: without a valid signature they say nothing.
        if let Some(keys) = keys {
            // The signature covers the encoded text, not the decoded JSON.
            let signed = &jwt[..jwt.len() - signature.len() - 1];
            keys.verify(&header, signed, signature)
                .ok_or("the JWT is not signed by the issuer")?;
        }
        // Tailscale's own client checks the three parts and this, and no more.
        if claims.exp <= now.as_second() {
            return Err("the JWT has expired");
        }
        if claims.nbf.is_some_and(|from| from > now.as_second()) {
            return Err("the JWT is not in force yet");
        }
        match &claims.aud {
            Audience::One(one) if *one == self.audience => Ok(()),
            Audience::Several(several) if several.contains(&self.audience) => Ok(()),
            _ => Err("the JWT is for another audience"),
        }
    }
}

impl IssuerKeys {
    /// The token must be signed by the key that it names, or by any key if it names none.
    fn verify(&self, header: &Header, signed: &str, signature: &str) -> Option<()> {
        // "none" and symmetric algorithms would let anybody sign.
        if header.alg != "RS256" {
            return None;
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut keys = self
            .keys
            .iter()
            .filter(|key| header.kid.is_none() || key.kid == header.kid);
        keys.find_map(|key| {
            let key = RsaPublicKeyComponents {
                n: BASE64_URL_SAFE_NO_PAD.decode(&key.n).ok()?,
                e: BASE64_URL_SAFE_NO_PAD.decode(&key.e).ok()?,
            };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
                .ok()
        })
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl FromStr for WorkloadIdentity {
    type Err = String;

    /// Parses `CLIENT_ID:AUDIENCE` or `CLIENT_ID:AUDIENCE:SCOPE,SCOPE…`. Without scopes the identity has
    /// all. The `://` of an audience does not end it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected CLIENT_ID:AUDIENCE or CLIENT_ID:AUDIENCE:SCOPE,SCOPE…";
        let (client_id, rest) = text.split_once(':').ok_or(expected)?;
        let mut colons = rest.match_indices(':').map(|(at, _)| at);
        // An audience is often a URL: https://kubernetes.default.svc.
        let end = colons.find(|at| !rest[at + 1..].starts_with("//"));
        let (audience, scopes) = match end {
            Some(at) => (&rest[..at], Scopes::parse(&rest[at + 1..])),
            None => (rest, Scopes::all()),
        };
        if client_id.is_empty() || audience.is_empty() {
            return Err(expected.to_owned());
        }
        Ok(Self {
            client_id: client_id.to_owned(),
            audience: audience.to_owned(),
            scopes,
        })
    }
}

impl FromStr for IssuerKeys {
    type Err = String;

    /// Parses a JSON Web Key Set.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys: Self = serde_json::from_str(text).map_err(|error| {
            format!("{error}; expected a JSON Web Key Set: {{\"keys\": [ … ]}}")
        })?;
        // Otherwise the simulator would start and refuse every token.
        if keys.keys.iter().all(|key| key.n.is_empty()) {
            return Err("it holds no RSA key, and no other kind is understood".to_owned());
        }
        Ok(keys)
    }
}
