//! The budget of requests of a tailnet.

use std::sync::Arc;

use crate::{
    api::TailscaleTailnetSpec,
    model::Refused,
    tailscale::{Bucket, Budget},
};

/// The bucket of one tailnet's requests, and the API that it is for: it outlives the clients.
#[derive(Debug, Clone)]
pub(in crate::controller) struct TailnetBudget {
    url: String,
    bucket: Arc<Bucket>,
}

impl TailnetBudget {
    /// A full bucket.
    pub fn new(url: &str, budget: Budget) -> Self {
        Self {
            // An edit of the final slash is no other API, and must not refill the bucket.
            url: url.trim_end_matches('/').to_owned(),
            bucket: Arc::new(Bucket::new(budget)),
        }
    }

    /// Whether it is the budget of this API.
    pub fn is_of(&self, url: &str) -> bool {
        self.url == url.trim_end_matches('/')
    }

    pub fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket)
    }
}

/// How many requests a spec allows.
pub(in crate::controller) fn request_budget(
    spec: &TailscaleTailnetSpec,
) -> Result<Budget, Refused> {
    let per_second = f64::from(spec.requests_per_second().get());
    Budget::new(per_second, spec.request_burst().get())
}
