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

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        apimachinery::pkg::apis::meta::v1::{Condition, Time},
        jiff::Timestamp,
    };

    use super::*;

    fn in_sync(generation: i64) -> TailscaleDevicePolicyStatus {
        TailscaleDevicePolicyStatus {
            conditions: vec![Condition {
                type_: conditions::IN_SYNC.to_owned(),
                status: "True".to_owned(),
                reason: "InSync".to_owned(),
                message: String::new(),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
                observed_generation: Some(generation),
            }],
            ..TailscaleDevicePolicyStatus::default()
        }
    }

    #[test]
    fn a_policy_that_was_edited_since_it_was_in_sync_is_new() {
        let since = Timestamp::UNIX_EPOCH;
        assert_eq!(history(Some(&in_sync(1)), 1), History::InSync { since });
        assert_eq!(history(Some(&in_sync(1)), 2), History::New);
        assert_eq!(history(None, 1), History::New);
    }
}
