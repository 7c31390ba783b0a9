use std::{fmt, sync::Arc, time::Duration};

use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::{Bucket, Budget, endpoint::Endpoint, error::Kind};

/// How to reach a tailnet.
#[derive(Clone)]
pub struct Settings {
    /// The URL of the API; `/api/v2/…` is appended. For example `https://api.tailscale.com`.
    pub base_url: Url,
    /// The tailnet's id or name. `-` is the tailnet of the credential.
    pub tailnet: String,
    /// How many requests may be sent.
    pub budget: Budget,
    /// The bucket that this client takes from, if an earlier client of the same tailnet has used it. `None`:
    /// a new one.
    pub bucket: Option<Arc<Bucket>>,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Called after each exchange, for metrics. Must not block.
    pub observer: Option<Observer>,
    /// Once it is cancelled, nothing more is sent, not even waiting or repeated requests.
    pub stop: CancellationToken,
}

/// How long to wait for the network. Waiting for the budget does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For one exchange, the body included.
    pub request: Duration,
    /// The same for the list of all devices, which can be large.
    pub list: Duration,
}

/// Called after each exchange.
pub type Observer = Arc<dyn Fn(&Observation) + Send + Sync>;

/// One exchange with the API; a request that is repeated has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The HTTP status; `None` without an answer.
    pub status: Option<u16>,
    /// The ID that the API gave the request.
    pub request_id: Option<String>,
    /// The failure, if any.
    pub failure: Option<Kind>,
    /// The time from sending to the end of the body.
    pub duration: Duration,
}

impl Settings {
    /// The defaults: 5 requests per second, 10 s to connect, 30 s for a request, 60 s for a list.
    #[must_use]
    pub fn new(base_url: Url, tailnet: impl Into<String>) -> Self {
        Self {
            base_url,
            tailnet: tailnet.into(),
            budget: Budget::default(),
            bucket: None,
            user_agent: concat!("tsdp/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            observer: None,
            stop: CancellationToken::new(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            request: Duration::from_secs(30),
            list: Duration::from_mins(1),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            // Not the whole URL: it could contain a password before it is refused for that.
            .field("host", &self.base_url.host_str())
            .field("tailnet", &self.tailnet)
            .field("budget", &self.budget)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}
