//! The lead is told only once everything has been read that former leaders kept.
//!
//! A watch may lag behind. What a former leader wrote last (an approval that was used, an act that was
//! begun) must be known before the first call of this one, or it would be done twice. Former leaders
//! write nothing any more once the lease is won, so a list that the API server answers from its store
//! after that has it all.

use std::time::Duration;

use kube::{Api, ResourceExt as _, api::ListParams};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::warn;

use super::{declared::declared, lease::Leadership, reporter::API_SERVER, router::News};
use crate::{
    api::{DeserializeGuard, TailscaleDevicePolicy, TailscaleDevicePolicyStatus},
    plan::{Declared, Memory, PolicyKey},
};

pub(super) type Policies = Api<DeserializeGuard<TailscaleDevicePolicy>>;

/// The status of a policy as former leaders left it.
pub(super) struct Kept {
    pub key: PolicyKey,
    pub uid: String,
    pub status: TailscaleDevicePolicyStatus,
    pub memory: Memory,
}

impl Kept {
    /// `None` where there is no status, or none that can be read.
    fn of(object: DeserializeGuard<TailscaleDevicePolicy>) -> Option<Self> {
        let key = PolicyKey {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        // What is remembered does not go by the time that a deletion may take.
        let Declared { uid, memory, .. } = declared(&key, &object, Duration::ZERO);
        let status = object.0.ok()?.status?;
        Some(Self {
            key,
            uid,
            status,
            memory,
        })
    }
}

/// Objects of one answer.
const PAGE: u32 = 500;
/// Before a list is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells for ever whether this process leads.
pub(super) async fn forward_lead(
    mut leadership: Leadership,
    policies: Vec<Policies>,
    news: mpsc::UnboundedSender<News>,
) {
    loop {
        leadership.won().await;
        let mut lost = leadership.clone();
        let kept = tokio::select! {
            kept = read_all(&policies) => kept,
            () = lost.lost() => continue,
        };
        if news.send(News::Won(kept)).is_err() {
            return;
        }
        leadership.lost().await;
        if news.send(News::Lost).is_err() {
            return;
        }
    }
}

async fn read_all(policies: &[Policies]) -> Vec<Kept> {
    let mut kept = Vec::new();
    for api in policies {
        while let Err(error) = read(api, &mut kept).await {
            warn!("what former leaders kept cannot be read: {error}; trying again");
            sleep(PAUSE).await;
        }
    }
    kept
}

async fn read(api: &Policies, kept: &mut Vec<Kept>) -> Result<(), String> {
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = timeout(API_SERVER, api.list(&page)).await;
        let listed = listed.map_err(|_| "no answer in time".to_owned())?;
        let listed = listed.map_err(|error| error.to_string())?;
        kept.extend(listed.items.into_iter().filter_map(Kept::of));
        match listed.metadata.continue_ {
            Some(next) if !next.is_empty() => page = page.continue_token(&next),
            _ => return Ok(()),
        }
    }
}
