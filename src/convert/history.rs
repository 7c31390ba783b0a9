//! What a status says about the time before this process.

use crate::{
    api::{TailscaleDevicePolicyStatus, conditions},
    model::Reason,
    plan::History,
};

/// Whether the policy was in sync at this generation, and since when no change of it is known.
#[must_use]
pub fn history(status: Option<&TailscaleDevicePolicyStatus>, generation: i64) -> History {
    let Some(status) = status else {
        return History::New;
    };
    // `Ready` alone would forget it while the API cannot be reached, and `InSync` until the attributes are read.
    let tells = status.conditions.iter().filter(|it| {
        it.status == "True"
            && it.observed_generation == Some(generation)
            && match &*it.type_ {
                conditions::READY => it.reason == Reason::InSync.as_str(),
                conditions::IN_SYNC => true,
                _ => false,
            }
    });
    let Some(since) = tells.map(|it| it.last_transition_time.0).min() else {
        return History::New;
    };
    let changed = status.last_change_time.as_ref().map(|time| time.0);
    History::InSync {
        since: changed.map_or(since, |changed| changed.max(since)),
    }
}
