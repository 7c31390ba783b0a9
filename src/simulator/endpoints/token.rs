//! Access tokens: for OAuth client credentials, and in exchange for the token of a workload.

use std::collections::HashMap;

use serde_json::json;

use super::call::Call;
use crate::simulator::{
    response::{Answer, Refusal, Reply},
    scopes::Scopes,
    world::World,
};

/// `POST /oauth/token`. `grant_type` is optional: the Python client sends none.
pub(super) fn create(world: &mut World, call: &Call) -> Reply {
    let form: HashMap<String, String> = form_urlencoded::parse(call.body).into_owned().collect();
    let client = world.credentials.client_scopes(call.headers, &form)?;
    if form
        .get("grant_type")
        .is_some_and(|it| it != "client_credentials")
    {
        return Err(Refusal::bad_request("unsupported grant_type"));
    }
    // A token has its scopes for life: widening the client does not help an older one.
    let scopes = match form.get("scope") {
        Some(wanted) if !wanted.is_empty() => Scopes::parse(wanted),
        _ => client.clone(),
    };
    // Refused as a whole, not narrowed: the client would fail later, and for another reason.
    if !client.cover(&scopes) {
        return Err(Refusal::bad_request("requested scopes are not permitted"));
    }
    Ok(grant(world, scopes))
}

/// `POST /oauth/token-exchange`, documented only by Tailscale's own client (identityfederation.go).
pub(super) fn exchange(world: &mut World, call: &Call) -> Reply {
    let form: HashMap<String, String> = form_urlencoded::parse(call.body).into_owned().collect();
    let scopes = world.credentials.identity_scopes(&form, world.now())?;
    Ok(grant(world, scopes))
}

fn grant(world: &mut World, scopes: Scopes) -> Answer {
    let lifetime = world.switches.token_lifetime_seconds;
    let now = world.now();
    let scope = scopes.joined();
    let token = world.credentials.mint(scopes, now, lifetime);
    Answer::json(&json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": scope,
    }))
}
