//! Handles one request: log, faults, response.
//!
//! The state is behind a mutex that is never held across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    control,
    endpoints::{self, Incoming},
    fault::{Effect, Hit},
    journal::{LoggedRequest, shown_body},
    path::Target,
    response::Answer,
    world::World,
};

/// The state that all connections share.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        // A panic in a handler fails its own request. Others continue with the state that it left.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose body has been read.
pub(super) struct Request {
    pub method: Method,
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How a response reaches the client.
pub(super) enum Delivery {
    Whole(Answer),
    /// The headers promise the whole body, but only half is sent.
    Truncated(Answer),
    /// The connection closes without a response.
    Nothing,
}

const REQUEST_ID: &str = "x-tailscale-request-id";

pub(super) async fn serve(shared: &Shared, request: Request) -> Delivery {
    let method = request.method.as_str();
    // Control requests are neither logged nor hit by faults, or a fault could not be removed.
    match request.target.segments.first().map(String::as_str) {
        Some("_sim") => {
            let answer =
                control::answer(&mut shared.lock(), method, &request.target, &request.body);
            Delivery::Whole(answer)
        }
        Some("api") => serve_api(shared, request).await,
        _ => Delivery::Whole(control::elsewhere()),
    }
}

async fn serve_api(shared: &Shared, request: Request) -> Delivery {
    let request_id = request_id(&request.headers);
    // One clock for each request: if it were read twice, a change of the clock in between could give a
    // response whose token and date disagree.
    let ahead = shared.lock().clock_ahead();
    let (number, hit) = admit(&mut shared.lock(), &request, &request_id);
    let Hit { delay, effect, .. } = hit;
    // Before the delay: a request takes effect even if its client gives up meanwhile.
    let answer = match &effect {
        Some(Effect::Answer(answer)) => Some(answer.clone()),
        Some(Effect::ResetBefore) => None,
        effect => Some(affected(shared, &request, effect.as_ref())),
    };
    // Without the lock: other requests are served meanwhile.
    tokio::time::sleep(delay).await;
    let Some(answer) = answer.filter(|_| !matches!(effect, Some(Effect::ResetAfter))) else {
        return Delivery::Nothing;
    };
    shared.lock().journal.close(number, answer.status.as_u16());
    let machine_time = Timestamp::now();
    let now = machine_time.saturating_add(ahead).unwrap_or(machine_time);
    let stamped = answer
        .header(REQUEST_ID, &request_id)
        .header("date", &httpdate::fmt_http_date(now.into()));
    match effect {
        Some(Effect::Truncate) => Delivery::Truncated(stamped),
        _ => Delivery::Whole(stamped),
    }
}

/// Logs a request and finds the faults that hit it.
fn admit(world: &mut World, request: &Request, request_id: &str) -> (usize, Hit) {
    let method = request.method.as_str();
    let hit = world.faults.hit(method, &request.target.path);
    // Anyone who can reach the simulator can read the log.
    let body = if request.target.path.contains("/oauth/") {
        json!("not logged: it holds a secret")
    } else {
        shown_body(&request.body)
    };
    let number = world.journal.open(LoggedRequest {
        method: method.to_owned(),
        path: request.target.raw.clone(),
        status: None,
        body,
        time: Timestamp::now(),
        request_id: request_id.to_owned(),
        faults: hit.names.clone(),
    });
    (number, hit)
}

/// Executes a request and changes its response as the fault says.
fn affected(shared: &Shared, request: &Request, effect: Option<&Effect>) -> Answer {
    let stale = match effect {
        Some(Effect::StaleList(records)) => Some(records.clone()),
        _ => None,
    };
    let incoming = Incoming {
        method: request.method.as_str(),
        target: &request.target,
        headers: &request.headers,
        body: &request.body,
        stale,
    };
    let answer = endpoints::answer(&mut shared.lock(), incoming);
    // A refusal has no list to shorten.
    if !answer.status.is_success() {
        return answer;
    }
    match effect {
        Some(Effect::ShortList) => reshape(answer, shorten),
        Some(Effect::WrongShape) => reshape(answer, misshape),
        _ => answer,
    }
}

fn reshape(answer: Answer, change: fn(Value) -> Value) -> Answer {
    match serde_json::from_slice(&answer.body) {
        Ok(json) => Answer {
            body: change(json).to_string().into_bytes(),
            ..answer
        },
        Err(_) => answer,
    }
}

/// Keeps the first half of a list.
fn shorten(mut list: Value) -> Value {
    if let Some(devices) = list["devices"].as_array_mut() {
        devices.truncate(devices.len() / 2);
    }
    list
}

/// The list as the live endpoint sent it for a while on 2025-11-11 (tailscale#17853): an object keyed by
/// id. Any other response is inside an array.
fn misshape(mut json: Value) -> Value {
    match json.get_mut("devices").map(Value::take) {
        Some(Value::Array(devices)) => devices
            .into_iter()
            .map(|device| {
                let id = device["id"].as_str().unwrap_or_default().to_owned();
                (id, device)
            })
            .collect(),
        _ => json!([json]),
    }
}

/// `REQ-<YYYYMMDDhhmmssmmm><16 hex>`, or the id that the client sent.
fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    sent.filter(|id| !id.is_empty()).map_or_else(
        || {
            let now = Timestamp::now();
            let milliseconds = now.subsec_millisecond();
            let second = now.strftime("%Y%m%d%H%M%S");
            format!("REQ-{second}{milliseconds:03}{:016x}", fastrand::u64(..))
        },
        str::to_owned,
    )
}
