//! What a status says of that which is done once.

use super::{Verdict, count, whole_second};
use jiff::SignedDuration;

use crate::{
    api::{self, ActStatus, ActTotals, Reason, TailscaleDevicePolicyStatus},
    controller::conditions::Progress,
    plan::{self, ClockSkew, Field, Stage},
    tailnet::{ActDetail, PolicyReport},
};

/// That something was missed is said, but nothing is waited for: the manifest may keep its time for
/// long after it.
pub(super) fn explain(verdict: Verdict, report: &PolicyReport) -> Verdict {
    let verdict = with_clock(verdict, report.acts.clock_skew);
    let totals = report.acts.totals.iter();
    let missed: Vec<_> = totals
        .filter_map(|(stage, count)| match stage {
            Stage::Missed(why) => Some((why, count)),
            _ => None,
        })
        .collect();
    if missed.is_empty() || verdict.progress != Progress::Done {
        return verdict;
    }
    let missed = missed.into_iter().map(|(why, devices)| {
        let devices = match devices {
            1 => "1 device".to_owned(),
            many => format!("{many} devices"),
        };
        format!(" expireKeyAt is missed for {devices}, as {why}; a later time is another act.")
    });
    let message = missed.fold(verdict.message, |text, missed| text + &missed);
    Verdict { message, ..verdict }
}

/// That no one-shot action begins, as the clock is wrong.
pub(super) fn with_clock(verdict: Verdict, skew: Option<SignedDuration>) -> Verdict {
    let Some(skew) = skew.filter(|_| verdict.reason != Reason::ActHeld) else {
        return verdict;
    };
    let skew = ClockSkew(skew).to_string();
    let message = format!("{} But {skew}.", verdict.message);
    Verdict { message, ..verdict }
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    status.acts = report.acts.details.iter().map(detail).collect();
    let of = |wanted: fn(&Stage) -> bool| {
        let totals = report.acts.totals.iter();
        let fitting = totals.filter(|(stage, _)| wanted(stage));
        let total: usize = fitting.map(|(_, count)| count).sum();
        (total > 0).then(|| count(total))
    };
    status.act_totals = (!report.acts.totals.is_empty()).then(|| ActTotals {
        scheduled: of(|stage| *stage == Stage::Scheduled),
        due: of(|stage| *stage == Stage::Due),
        started: of(|stage| *stage == Stage::Started),
        waiting: of(|stage| *stage == Stage::Waiting),
        missed: of(|stage| matches!(stage, Stage::Missed(_))),
        done: of(|stage| *stage == Stage::Done),
    });
    let records = &report.memory.acts;
    status.act_records = (!records.is_empty()).then(|| self::records(records));
}

fn detail(act: &ActDetail) -> ActStatus {
    let (state, message) = match act.stage {
        Stage::Due => ("Due", None),
        Stage::Started => ("Started", None),
        Stage::Missed(why) => ("Missed", Some(format!("{why}; it is never done"))),
        Stage::Scheduled => ("Scheduled", None),
        Stage::Waiting => (
            "Waiting",
            Some("maxPerDay devices are deleted within a day".to_owned()),
        ),
        Stage::Done => ("Done", None),
    };
    let held = act.held.as_ref().map(|held| format!("held: {held}"));
    ActStatus {
        act: match act.field {
            Field::Reap => "Delete".to_owned(),
            _ => "ExpireKey".to_owned(),
        },
        state: state.to_owned(),
        device: act.node.to_string(),
        name: act.label.clone(),
        message: held.or(message),
    }
}

fn records(records: &plan::ActRecords) -> api::ActRecords {
    let expiries = records.expiries.iter().map(|(at, record)| {
        let started = record
            .started
            .iter()
            .map(|(id, before)| api::StartedExpiry {
                node_id: id.to_string(),
                expires_before: before.map(|before| before.to_string()),
            });
        api::KeyExpiries {
            at: at.to_string(),
            started: started.collect(),
            done: record.done.iter().map(ToString::to_string).collect(),
            missed_told: record.missed_told,
        }
    });
    let deletions = records.deletions.iter();
    let deletions = deletions.map(|(id, record)| api::DeletedDevice {
        node_id: id.to_string(),
        name: record.name.clone(),
        at: whole_second(record.at),
        done: record.done,
    });
    api::ActRecords {
        key_expiries: expiries.collect(),
        deletions: deletions.collect(),
        dropped_until: records.dropped_until.map(|time| time.to_string()),
    }
}
