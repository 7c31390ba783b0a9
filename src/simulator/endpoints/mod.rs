//! The endpoints of the API, one line each with the scope that it requires.

mod address;
mod attributes;
mod batch;
mod call;
mod devices;
mod invites;
mod name;
mod policy_file;
mod routes;
mod settings;
mod token;

use std::sync::Arc;

use axum::body::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    auth::{Actor, NOT_PERMITTED},
    device::Record,
    path::Target,
    response::{Answer, Refusal, Reply},
    world::World,
};
use call::Call;

/// A request whose credentials are not checked yet.
pub(super) struct Incoming<'a> {
    pub method: &'a str,
    pub target: &'a Target,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
    pub stale: Option<Arc<Vec<Record>>>,
}

/// The permission that an endpoint requires.
#[derive(Clone, Copy)]
enum Access {
    /// Everyone. The endpoint checks credentials of its own kind.
    Open,
    /// A user, or a token with this scope.
    Scope(&'static str),
    /// Only a user. OAuth tokens belong to none.
    User,
}

type Handler = fn(&mut World, &Call) -> Reply;
type Endpoint = (&'static str, &'static str, Access, Handler);

use Access::{Open, Scope, User};

#[rustfmt::skip]
const ENDPOINTS: &[Endpoint] = &[
    ("POST",   "oauth/token",                         Open,                                     token::create),
    ("POST",   "oauth/token-exchange",                Open,                                     token::exchange),
    ("GET",    "tailnet/{tailnet}/devices",           Scope("devices:core:read"),               devices::list),
    ("PATCH",  "tailnet/{tailnet}/device-attributes", Scope("devices:posture_attributes"),      batch::patch),
    ("GET",    "tailnet/{tailnet}/acl",               Scope("policy_file:read"),                policy_file::get),
    ("POST",   "tailnet/{tailnet}/acl",               Scope("policy_file"),                     policy_file::set),
    ("GET",    "device/{device}",                     Scope("devices:core:read"),               devices::get),
    ("DELETE", "device/{device}",                     Scope("devices:core"),                    devices::delete),
    ("POST",   "device/{device}/expire",              Scope("devices:core"),                    settings::expire),
    ("POST",   "device/{device}/authorized",          Scope("devices:core"),                    settings::authorize),
    ("POST",   "device/{device}/tags",                Scope("devices:core"),                    settings::set_tags),
    ("POST",   "device/{device}/key",                 Scope("devices:core"),                    settings::set_key),
    ("POST",   "device/{device}/name",                Scope("devices:core"),                    name::set),
    ("POST",   "device/{device}/ip",                  Scope("devices:core"),                    address::set),
    ("GET",    "device/{device}/routes",              Scope("devices:routes:read"),             routes::get),
    ("POST",   "device/{device}/routes",              Scope("devices:routes"),                  routes::set),
    ("GET",    "device/{device}/attributes",          Scope("devices:posture_attributes:read"), attributes::get),
    ("POST",   "device/{device}/attributes/{key}",    Scope("devices:posture_attributes"),      attributes::set),
    ("DELETE", "device/{device}/attributes/{key}",    Scope("devices:posture_attributes"),      attributes::delete),
    ("GET",    "device/{device}/device-invites",      Scope("device_invites:read"),             invites::list),
    ("POST",   "device/{device}/device-invites",      User,                                     invites::create),
    ("GET",    "device-invites/{invite}",             Scope("device_invites:read"),             invites::get),
    ("DELETE", "device-invites/{invite}",             Scope("device_invites"),                  invites::delete),
    ("POST",   "device-invites/{invite}/resend",      User,                                     invites::resend),
    ("POST",   "device-invites/-/accept",             User,                                     invites::accept),
];

/// Answers a request to the API.
pub(super) fn answer(world: &mut World, request: Incoming) -> Answer {
    // Before the credentials: refused requests count as well.
    if let Some(limit) = world.switches.rate_limit
        && let Err(refused) = world.window.admit(limit, world.now())
    {
        return *refused;
    }
    match find(request.method, &request.target.segments) {
        Found::Nothing => Refusal::not_found("404 page not found").into(),
        // The live API returns only the status.
        Found::OtherMethod => Answer::empty().with_status(StatusCode::METHOD_NOT_ALLOWED),
        Found::Endpoint(endpoint, params) => {
            run(world, endpoint, params, request).unwrap_or_else(Answer::from)
        }
    }
}

fn run(world: &mut World, endpoint: &Endpoint, params: Vec<String>, request: Incoming) -> Reply {
    let (_, path, access, handler) = endpoint;
    let actor = match access {
        Open => Actor::User,
        // 401 before 403: who it is comes before what they may do.
        Scope(_) | User => world.credentials.actor(request.headers, world.now())?,
    };
    let permitted = match access {
        Open => true,
        Scope(scope) => actor.may(scope),
        User => actor.is_user(),
    };
    if !permitted {
        return Err(Refusal::new(StatusCode::FORBIDDEN, NOT_PERMITTED));
    }
    // The message of the live API for another tailnet (tailscale#3032).
    if path.starts_with("tailnet/") && params[0] != "-" && params[0] != world.tailnet {
        return Err(Refusal::not_found("user tailnet does not match"));
    }
    let call = Call {
        params,
        actor,
        target: request.target,
        headers: request.headers,
        body: request.body,
        stale: request.stale,
    };
    handler(world, &call)
}

enum Found {
    Endpoint(&'static Endpoint, Vec<String>),
    OtherMethod,
    Nothing,
}

fn find(method: &str, segments: &[String]) -> Found {
    let Some(segments) = segments.strip_prefix(&["api".to_owned(), "v2".to_owned()]) else {
        return Found::Nothing;
    };
    let mut found = Found::Nothing;
    for endpoint in ENDPOINTS {
        if let Some(params) = params(endpoint.1, segments) {
            if endpoint.0 == method {
                return Found::Endpoint(endpoint, params);
            }
            // Goes on: another endpoint of the path may have the method.
            found = Found::OtherMethod;
        }
    }
    found
}

/// The values of the `{…}`, if the path matches.
fn params(pattern: &str, segments: &[String]) -> Option<Vec<String>> {
    let parts: Vec<_> = pattern.split('/').collect();
    if parts.len() != segments.len() {
        return None;
    }
    let mut params = Vec::new();
    for (part, segment) in parts.into_iter().zip(segments) {
        if part.starts_with('{') && !segment.is_empty() {
            params.push(segment.clone());
        } else if part != segment {
            return None;
        }
    }
    Some(params)
}
