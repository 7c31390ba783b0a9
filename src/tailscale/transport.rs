//! Sends requests: within the budget, repeated if that is safe, and logged.

use std::{convert::Infallible, sync::Arc, time::Duration};

use reqwest::{
    RequestBuilder, Response, Url,
    header::{ACCEPT, CONTENT_TYPE},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    budget::{Bucket, Haste, Token},
    device_list::ListReader,
    endpoint::Endpoint,
    error::{Error, Kind},
    no_answer,
    permit::{Permit, PermittedBody},
    request::{Body, Request},
    response::{self, Answer},
    settings::{Observation, Observer, Settings, Timeouts},
};
use crate::model::UnreadableDevices;

pub(super) struct Transport {
    http: reqwest::Client,
    base: Url,
    timeouts: Timeouts,
    bucket: Arc<Bucket>,
    observer: Option<Observer>,
    stop: CancellationToken,
}

/// How long a request waits for its answer before the log says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a request is sent in total. The caller knows better when to try again after that.
const MAX_TRIES: u32 = 3;

/// The longest pause within a request. A longer one is returned to the caller; the bucket keeps it anyway.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How much of an error's body is read.
const ERROR_BODY_LIMIT: usize = 64 * 1024;

/// How much of any answer except the list of devices is read.
const BODY_LIMIT: usize = 1024 * 1024;

impl Transport {
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(settings.user_agent)
            .connect_timeout(settings.timeouts.connect)
            // A list may take longer as a whole, but not without a byte.
            .read_timeout(settings.timeouts.request)
            // A redirected POST would become a GET, and the token would go to any host that the redirect
            // names.
            .redirect(redirect::Policy::none())
            // Without it, a connection that died silently fails every request on it for minutes.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build()?;
        let bucket = match settings.bucket {
            Some(bucket) => {
                bucket.set_budget(settings.budget);
                bucket
            }
            None => Arc::new(Bucket::new(settings.budget)),
        };
        Ok(Self {
            http,
            base: settings.base_url,
            timeouts: settings.timeouts,
            bucket,
            observer: settings.observer,
            // A child: closing this client must not stop others that have the same parent.
            stop: settings.stop.child_token(),
        })
    }

    /// Waits for a token of the budget; `None` once the client is stopped.
    pub async fn token(&self, haste: Haste) -> Option<Token> {
        let token = self.stop.run_until_cancelled(self.bucket.take(haste)).await;
        // A token that comes in the moment of the stop is returned to the bucket.
        token.filter(|_| !self.stop.is_cancelled())
    }

    /// Sends the request with a token that was taken before, or with the next one. A read is sent again if
    /// that can help; a write never is, as its reasons may be gone by then.
    pub async fn send(
        &self,
        request: &Request,
        bearer: Option<&SecretString>,
        mut token: Option<Token>,
    ) -> Result<Answer, Error> {
        let mut tries = 0;
        let mut last = None;
        loop {
            let token = match token.take() {
                Some(token) => Some(token),
                None => self.token(Haste::Quick).await,
            };
            // A stop between two tries: the error of the last one says more than that.
            let Some(token) = token.filter(|_| !self.stop.is_cancelled()) else {
                return Err(last.unwrap_or_else(|| not_sent(request, STOPPED)));
            };
            tries += 1;
            let start = Instant::now();
            let error = match self.exchange(request, bearer, token, None).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let soon = error.pause.is_none_or(|pause| pause <= MAX_WAIT);
            // After a wait in vain, another one would only double it.
            let was_quick = start.elapsed() < self.timeouts.connect;
            let may_repeat = request.endpoint.is_read() && error.is_transient() && was_quick;
            if tries == MAX_TRIES || !may_repeat || !soon {
                return Err(error);
            }
            // After a pause the bucket decides. Otherwise the delay is random, so that callers do not return
            // at once.
            if error.pause.is_none() {
                tokio::time::sleep(backoff(tries)).await;
            }
            last = Some(error);
        }
    }

    /// Sends the request at most once, and only while its permit holds.
    pub async fn send_once(
        &self,
        request: &Request,
        bearer: &SecretString,
        token: Token,
        permit: &Permit,
    ) -> Result<Answer, Error> {
        let revoke_once_stopped = async {
            // Revoked, not dropped: the server's answer to a request that was sent is still read.
            self.stop.cancelled().await;
            permit.revoke();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            // The revocation first: if both are ready, nothing must be sent.
            biased;
            () = permit.revoked() => Err(not_sent(request, REVOKED)),
            never = revoke_once_stopped => match never {},
            outcome = self.exchange(request, Some(bearer), token, Some(permit)) => outcome,
        }
    }

    /// Sends nothing from now on, not even waiting requests. Requests that were sent are still answered.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// One request and its answer, observed. A pause that the server requests applies to all requests.
    async fn exchange(
        &self,
        request: &Request,
        bearer: Option<&SecretString>,
        token: Token,
        permit: Option<&Permit>,
    ) -> Result<Answer, Error> {
        // From here on the server may receive the request, so the token is gone whatever the outcome
        // is.
        token.spend();
        let start = Instant::now();
        let outcome = self.ask(request, bearer, permit).await;
        if let Err(error) = &outcome
            && error.kind == Kind::NotSent
        {
            // The server has not seen it: it is no exchange to observe.
            return outcome;
        }
        if let Err(Error {
            pause: Some(pause), ..
        }) = &outcome
        {
            // Before the next try takes its token, so that the pause delays it too.
            self.bucket.pause(*pause);
        }
        let duration = start.elapsed();
        let (status, request_id, failure) = match &outcome {
            Ok(answer) => (Some(answer.status), &answer.request_id, None),
            Err(error) => (error.status, &error.request_id, Some(error)),
        };
        let status = status.map(|status| status.as_u16());
        debug!(
            request = request.title(),
            status,
            request_id,
            duration_ms = duration.as_millis(),
            failure = failure.map(|error| error.message.as_str()),
            "Tailscale API"
        );
        if let Some(observe) = &self.observer {
            observe(&Observation {
                endpoint: request.endpoint,
                status,
                request_id: request_id.clone(),
                failure: failure.map(Error::kind),
                duration,
            });
        }
        outcome
    }

    async fn ask(
        &self,
        request: &Request,
        bearer: Option<&SecretString>,
        permit: Option<&Permit>,
    ) -> Result<Answer, Error> {
        let timeout = match request.endpoint {
            Endpoint::Devices => self.timeouts.list,
            _ => self.timeouts.request,
        };
        let mut builder = self
            .http
            .request(request.method.clone(), request.url(&self.base))
            .timeout(timeout);
        // Without it, the policy file arrives with comments (HuJSON).
        if request.endpoint == Endpoint::TagOwners {
            builder = builder.header(ACCEPT, "application/json");
        }
        if let Some(token) = bearer {
            builder = builder.bearer_auth(token.expose_secret());
        }
        builder = match (&request.body, permit) {
            (body, Some(permit)) => permitted(builder, body, permit),
            (Body::None, None) => builder,
            (Body::Json(value), None) => builder.json(value),
            (
                Body::ClientCredentials {
                    client_id,
                    client_secret,
                },
                None,
            ) => builder.form(&[
                ("grant_type", "client_credentials"),
                ("client_id", client_id),
                ("client_secret", client_secret.expose_secret()),
            ]),
            (Body::TokenExchange { client_id, jwt }, None) => builder.form(&[
                ("client_id", client_id.as_str()),
                ("jwt", jwt.expose_secret()),
            ]),
        };
        let secret = bearer.or(request.secret());
        let mut sent = Box::pin(builder.send());
        let quick = tokio::time::timeout(PATIENCE, &mut sent).await;
        let sent = if let Ok(sent) = quick {
            sent
        } else {
            let request = request.title();
            let seconds = PATIENCE.as_secs();
            warn!(request, "no answer for {seconds} s; still waiting");
            sent.await
        };
        match sent {
            Ok(response) if response.status().is_success() => {
                accepted(request, response, secret).await
            }
            Ok(response) => Err(rejected(request, response, secret).await),
            // hyper reports a refused permit as a broken body, which is no failure of the network.
            Err(_) if permit.is_some_and(Permit::is_revoked) => Err(not_sent(request, REVOKED)),
            Err(error) => Err(unanswered(request, &error, self.timeouts.request)),
        }
    }
}

/// A request whose body checks the permit when it is written to a connection.
fn permitted(builder: RequestBuilder, body: &Body, permit: &Permit) -> RequestBuilder {
    let (builder, bytes) = match body {
        // The forms that request a token have no permit.
        Body::None | Body::ClientCredentials { .. } | Body::TokenExchange { .. } => (builder, None),
        Body::Json(value) => (
            builder.header(CONTENT_TYPE, "application/json"),
            Some(value.to_string().into_bytes()),
        ),
    };
    let body = PermittedBody::new(permit.clone(), bytes);
    builder.body(reqwest::Body::wrap(body))
}

/// A successful answer.
async fn accepted(
    request: &Request,
    mut response: Response,
    secret: Option<&SecretString>,
) -> Result<Answer, Error> {
    let answer = Answer {
        endpoint: request.endpoint,
        request: request.title(),
        status: response.status(),
        request_id: response::request_id(response.headers(), secret),
        date: response::date(response.headers()),
        body: Vec::new(),
        devices: Vec::new(),
        skipped: UnreadableDevices::default(),
        secret: secret.cloned(),
    };
    match request.endpoint {
        Endpoint::Devices => with_devices(request, response, answer).await,
        _ => with_body(request, &mut response, answer).await,
    }
}

async fn with_body(
    request: &Request,
    response: &mut Response,
    mut answer: Answer,
) -> Result<Answer, Error> {
    let whole = read_body(response, &mut answer.body, BODY_LIMIT).await;
    match whole {
        // First of all: a body that was read in part must not be taken for a whole one.
        _ if answer.body.len() >= BODY_LIMIT => {
            answer.body.clear();
            Err(answer.unexpected("expected at most 1 MiB, found more"))
        }
        Err(error) if request.endpoint.has_answer() => Err(cut_off(request, answer, &error)),
        // A write answers with its status only, but the answer must be the API's.
        _ if !request.endpoint.has_answer() && answer.is_html() => Err(answer.unexpected_body()),
        _ => Ok(answer),
    }
}

/// A list can be large, so each device is read as it arrives.
async fn with_devices(
    request: &Request,
    mut response: Response,
    mut answer: Answer,
) -> Result<Answer, Error> {
    let mut list = ListReader::default();
    loop {
        let read = match response.chunk().await {
            Ok(Some(chunk)) => list.read(&chunk),
            Ok(None) => break,
            Err(error) => return Err(cut_off(request, answer, &error)),
        };
        // At once: an endless list would otherwise be received until the timeout.
        if let Err(mismatch) = read {
            return Err(answer.unexpected(&mismatch.to_string()));
        }
    }
    answer.body = list.envelope().to_vec();
    match list.finish() {
        Ok((devices, skipped)) => Ok(Answer {
            devices,
            skipped,
            ..answer
        }),
        Err(mismatch) => Err(answer.mismatched(&mismatch)),
    }
}

fn cut_off(request: &Request, answer: Answer, error: &reqwest::Error) -> Error {
    Error {
        status: Some(answer.status),
        request_id: answer.request_id,
        unknown_outcome: true,
        ..unreachable(request, no_answer::cut_off(error))
    }
}

/// An unsuccessful answer. Its status counts, whatever its body is.
async fn rejected(
    request: &Request,
    mut response: Response,
    secret: Option<&SecretString>,
) -> Error {
    let status = response.status();
    let request_id = response::request_id(response.headers(), secret);
    let pause = match status.as_u16() {
        // The two statuses with which a server asks a client to slow down (RFC 6585, section 4;
        // RFC 9110, section 15.6.4).
        429 | 503 => response::retry_after(response.headers(), jiff::Timestamp::now()),
        _ => None,
    };
    let mut body = Vec::new();
    // Even if the body is cut off, the part that arrived is reported.
    let _ = read_body(&mut response, &mut body, ERROR_BODY_LIMIT).await;
    let body = response::scrub(&String::from_utf8_lossy(&body), secret);
    let message = response::message(&body);
    let kind = Kind::of(status, message.as_deref());
    Error {
        endpoint: request.endpoint,
        request: request.title(),
        kind,
        status: Some(status),
        message: message.unwrap_or_else(|| response::describe(&body)),
        request_id,
        pause,
        // A server that failed may have made the change before. A 4xx states that it has not.
        unknown_outcome: matches!(kind, Kind::ServerError | Kind::UnexpectedAnswer),
    }
}

fn unanswered(request: &Request, error: &reqwest::Error, within: Duration) -> Error {
    Error {
        // Without a connection, no byte has reached the server.
        unknown_outcome: !error.is_connect(),
        ..unreachable(request, no_answer::unanswered(error, within))
    }
}

fn unreachable(request: &Request, message: String) -> Error {
    Error {
        endpoint: request.endpoint,
        request: request.title(),
        kind: Kind::Unreachable,
        status: None,
        unknown_outcome: false,
        message,
        request_id: None,
        pause: None,
    }
}

/// Why a request was not sent.
pub(super) const STOPPED: &str = "this connection no longer sends requests";
const REVOKED: &str = "its reasons no longer hold";

pub(super) fn not_sent(request: &Request, why: &str) -> Error {
    Error {
        endpoint: request.endpoint,
        request: request.title(),
        kind: Kind::NotSent,
        status: None,
        message: why.to_owned(),
        request_id: None,
        pause: None,
        unknown_outcome: false,
    }
}

/// Reads into `body`, up to about `limit` bytes.
async fn read_body(
    response: &mut Response,
    body: &mut Vec<u8>,
    limit: usize,
) -> Result<(), reqwest::Error> {
    while body.len() < limit
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    Ok(())
}

/// Half a second, a second, …, each up to half shorter.
fn backoff(tries: u32) -> Duration {
    // The bound keeps the power from overflowing, whatever `MAX_TRIES` is.
    let longest = Duration::from_millis(500) * 2u32.pow(tries.saturating_sub(1).min(5));
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}
