//! Webhooks of Tailscale: a valid one triggers a poll of its tailnet, and nothing else.
//!
//! The controller does not read the body: the list is the source of truth, and a webhook can cause
//! nothing but a poll. The endpoint faces the internet: the sender of an invalid webhook learns
//! nothing, not even whether there is such a tailnet.

mod signature;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info};

use self::signature::Refusal;
use super::{
    http_server,
    metrics::{Metrics, Rejection},
};
use crate::tailnet::{Input, Message};

/// The tailnets that accept webhooks, and the secret of each.
#[derive(Clone)]
pub(in crate::controller) struct Webhooks {
    receivers: Arc<Mutex<HashMap<String, Receiver>>>,
    metrics: Arc<Metrics>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreadable => Self::Unsigned,
            Refusal::Forged => Self::Forged,
            Refusal::Old => Self::Old,
            Refusal::Early => Self::Early,
        }
    }
}

struct Receiver {
    secret: SecretString,
    arrived: Arc<Notify>,
    // Ends with the secret: a webhook that arrived just before triggers no later poll.
    _waking: AbortOnDropHandle<()>,
}

const SIGNATURE: &str = "tailscale-webhook-signature";
/// Some hundred events.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// At most one more poll in this time, regardless of the number of webhooks.
const PAUSE: Duration = Duration::from_secs(1);

impl Webhooks {
    /// Accepts none yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            receivers: Arc::default(),
            metrics,
        }
    }

    /// Accepts webhooks of a tailnet that are signed with this secret, and with no other.
    pub fn accept(
        &self,
        tailnet: &str,
        secret: SecretString,
        mailbox: mpsc::UnboundedSender<Message>,
    ) {
        let arrived = Arc::new(Notify::new());
        let waking = tokio::spawn(wake(Arc::clone(&arrived), mailbox));
        let receiver = Receiver {
            secret,
            arrived,
            _waking: AbortOnDropHandle::new(waking),
        };
        self.lock().insert(tailnet.to_owned(), receiver);
    }

    /// Stops accepting webhooks of a tailnet.
    pub fn refuse(&self, tailnet: &str) {
        self.lock().remove(tailnet);
    }

    /// Serves `POST /webhook/<tailnet>` until `stop` is cancelled; returns once the address is bound.
    pub async fn serve(self, address: SocketAddr, stop: CancellationToken) -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        info!(address = %listener.local_addr()?, "accepting webhooks at /webhook/<tailnet>");
        let router = Router::new()
            .route("/webhook/{tailnet}", post(receive))
            .with_state(self);
        tokio::spawn(http_server::serve(listener, router, stop));
        Ok(())
    }

    fn deliver(
        &self,
        tailnet: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(), (Rejection, String)> {
        // Cloned, so that nobody waits for the lock while a signature is verified.
        let (secret, arrived) = self
            .lock()
            .get(tailnet)
            .map(|it| (it.secret.clone(), Arc::clone(&it.arrived)))
            .ok_or_else(|| {
                let why =
                    "the Secret of the tailnet has no webhook_secret, or there is no such tailnet";
                (Rejection::UnknownTailnet, why.to_owned())
            })?;
        let header = headers
            .get(SIGNATURE)
            .and_then(|text| text.to_str().ok())
            // No header is refused like an invalid one.
            .unwrap_or_default();
        signature::verify(&secret, header, body, Timestamp::now())
            .map_err(|refusal| (refusal.into(), refusal.to_string()))?;
        // `Notify` stores one notification, so a flood of webhooks during the pause becomes one poll.
        arrived.notify_one();
        if let Some(metrics) = self.metrics.tailnet(tailnet) {
            metrics.webhook();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Receiver>> {
        self.receivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Triggers a poll at the first webhook, and once more after the pause if others arrived meanwhile.
async fn wake(arrived: Arc<Notify>, mailbox: mpsc::UnboundedSender<Message>) {
    loop {
        arrived.notified().await;
        if mailbox.send(Message::Input(Input::Poll)).is_err() {
            return;
        }
        // After the poll, so that the first webhook never waits.
        tokio::time::sleep(PAUSE).await;
    }
}

async fn receive(
    State(webhooks): State<Webhooks>,
    Path(tailnet): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    // Anyone can send a body, and its signature can be checked only once it is complete: hence both
    // limits.
    let outcome = match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => webhooks.deliver(&tailnet, &headers, &body),
        Ok(Err(error)) => Err((Rejection::Body, format!("its body cannot be read: {error}"))),
        Err(_) => Err((
            Rejection::Body,
            "its body did not arrive in time".to_owned(),
        )),
    };
    match outcome {
        Ok(()) => {
            debug!(?tailnet, "a webhook triggers a poll");
            StatusCode::OK
        }
        Err((rejection, why)) => {
            webhooks.metrics.webhook_rejected(rejection);
            debug!(?tailnet, "refused a webhook: {why}");
            // The same status for every reason: the sender must not learn which tailnets exist.
            StatusCode::UNAUTHORIZED
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_webhooks_wakes_the_poll_at_once_and_once_more_after_the_pause() {
        let (mailbox, mut woken) = mpsc::unbounded_channel();
        let arrived = Arc::new(Notify::new());
        let waking = tokio::spawn(wake(Arc::clone(&arrived), mailbox));
        let start = Instant::now();
        arrived.notify_one();
        assert!(woken.recv().await.is_some());
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            arrived.notify_one();
        }
        assert!(woken.recv().await.is_some());
        // The clock of tokio counts in whole milliseconds, rounded up.
        assert!(start.elapsed() >= PAUSE && start.elapsed() < PAUSE + Duration::from_millis(2));
        assert!(timeout(PAUSE * 60, woken.recv()).await.is_err());
        waking.abort();
    }
}
