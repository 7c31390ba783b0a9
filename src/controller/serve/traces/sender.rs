//! Sends batches of spans over HTTP, with the client that the program has anyway.

use std::{
    env,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT};
use reqwest::redirect;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::tailscale::no_answer;

/// How often a failure is logged.
const PAUSE: Duration = Duration::from_mins(10);
/// As OpenTelemetry prescribes.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Sender {
    http: reqwest::Client,
    timeout: Duration,
    /// The thread that sends has no runtime of its own.
    runtime: Handle,
    warned: Mutex<Option<Instant>>,
}

impl Sender {
    pub fn new() -> Result<Self, reqwest::Error> {
        let timeout = [
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
            OTEL_EXPORTER_OTLP_TIMEOUT,
        ]
        .into_iter()
        .find_map(|name| env::var(name).ok()?.parse().ok())
        .map_or(TIMEOUT, Duration::from_millis);
        let http = reqwest::Client::builder()
            .timeout(timeout)
            // The headers may have a token, which a redirect would take elsewhere.
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self {
            http,
            timeout,
            runtime: Handle::current(),
            warned: Mutex::default(),
        })
    }

    /// Logs that spans are lost, but not again and again.
    fn failed(&self, why: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= PAUSE) {
            *warned = Some(Instant::now());
            warn!(
                "OpenTelemetry: spans are lost: {why}. Check OTEL_EXPORTER_OTLP_ENDPOINT and the collector. The \
                 controller works without it, and repeats this warning every ten minutes at most"
            );
        }
    }

    fn succeeded(&self) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.take().is_some() {
            info!("OpenTelemetry: the collector accepts spans again");
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let exchange = async move {
            let answer = http.execute(request.try_into()?).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await?;
            Ok::<_, reqwest::Error>(response)
        };
        match self.runtime.spawn(exchange).await? {
            Ok(response) => {
                if response.status().is_success() {
                    self.succeeded();
                } else {
                    let status = response.status();
                    self.failed(&format!("the collector answered HTTP {status}"));
                }
                Ok(response)
            }
            Err(error) => {
                self.failed(&no_answer::unanswered(&error, self.timeout));
                Err(error.without_url().into())
            }
        }
    }
}
