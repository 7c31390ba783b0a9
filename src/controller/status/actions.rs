//! The one-shot actions in a status.

use super::{
    ready_state::{Progress, ReadyState},
    text::{count, counted},
};
use crate::{
    api::{ActionStatus, ActionTotals, Reason, TailscaleDevicePolicyStatus},
    plan::{ClockSkew, Field, Stage},
    tailnet::{ActionDetail, PolicyReport},
};
use jiff::SignedDuration;

/// Reports missed actions but does not wait for them: a manifest may keep a time that has passed.
pub(super) fn explain(ready: ReadyState, report: &PolicyReport) -> ReadyState {
    let ready = with_clock(ready, report.actions.clock_skew);
    if ready.progress() != Progress::Done {
        return ready;
    }
    let totals = report.actions.totals.iter();
    totals.fold(ready, |ready, (stage, devices)| match stage {
        Stage::Missed(why) => ready.and(&format!(
            " expireKeyAt is missed for {}, as {why}. Write a later time to expire the key.",
            counted(*devices, "device")
        )),
        _ => ready,
    })
}

/// Adds that no one-shot action begins while the clock is wrong.
pub(super) fn with_clock(ready: ReadyState, skew: Option<SignedDuration>) -> ReadyState {
    // A held action states by itself why it does not begin.
    let Some(skew) = skew.filter(|_| ready.reason() != Reason::ActionHeld) else {
        return ready;
    };
    ready.and(&format!(" But {}.", ClockSkew(skew)))
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    status.actions = report.actions.details.iter().map(detail).collect();
    let of = |wanted: fn(&Stage) -> bool| {
        let totals = report.actions.totals.iter();
        let fitting = totals.filter(|(stage, _)| wanted(stage));
        let total: usize = fitting.map(|(_, count)| count).sum();
        (total > 0).then(|| count(total))
    };
    status.action_totals = (!report.actions.totals.is_empty()).then(|| ActionTotals {
        scheduled: of(|stage| *stage == Stage::Scheduled),
        due: of(|stage| *stage == Stage::Due),
        started: of(|stage| *stage == Stage::Started),
        waiting: of(|stage| *stage == Stage::Waiting),
        missed: of(|stage| matches!(stage, Stage::Missed(_))),
        done: of(|stage| *stage == Stage::Done),
    });
}

fn detail(action: &ActionDetail) -> ActionStatus {
    let (state, message) = match action.stage {
        Stage::Due => ("Due", None),
        Stage::Started => ("Started", None),
        Stage::Missed(why) => ("Missed", Some(format!("{why}; the key is not expired"))),
        Stage::Scheduled => ("Scheduled", None),
        Stage::Waiting => (
            "Waiting",
            Some("the controller has deleted maxPerDay devices within a day".to_owned()),
        ),
        Stage::Done => ("Done", None),
    };
    let held = action.held.as_ref().map(|held| format!("held: {held}"));
    ActionStatus {
        action: match action.field {
            Field::DeleteInactive => "Delete".to_owned(),
            // The only other one-shot action.
            _ => "ExpireKey".to_owned(),
        },
        state: state.to_owned(),
        device: action.node.to_string(),
        name: action.label.clone(),
        message: held.or(message),
    }
}
