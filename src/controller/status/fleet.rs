//! The status of a policy about many devices.

use super::{Known, Verdict, bound, count, deleting, failed, failures, held, pending, worst};
use crate::{
    api::{DeviceStatus, Reason, TailscaleDevicePolicyStatus},
    controller::{conditions::Progress, reporter::flapping},
    tailnet::{DeviceReport, FleetReport},
};

/// How many devices a condition names.
const NAMED: usize = 3;

pub(super) fn verdict(report: &FleetReport) -> Verdict {
    let mut verdict = of_those_that_are_meant(report);
    if let Some(unjudged) = &report.unjudged {
        let devices = if unjudged.count == 1 {
            "device"
        } else {
            "devices"
        };
        let told = format!(
            " Of {} {devices} spec.deviceSelector.expression cannot tell, so that nothing is done about \
             them. The first is {} ({}): {}.",
            unjudged.count, unjudged.label, unjudged.node, unjudged.fault
        );
        verdict.message += &told;
    }
    let Some(first) = &report.flapping else {
        return verdict;
    };
    let told = flapping(&first.node, &first.label);
    let others = match first.count {
        1 => String::new(),
        many => format!(" {} other devices do so too.", many - 1),
    };
    if verdict.progress == Progress::Done {
        return Verdict::retrying(Reason::Contested, format!("{told}{others}"));
    }
    verdict.message = format!("{} {told}{others}", verdict.message);
    verdict
}

fn of_those_that_are_meant(report: &FleetReport) -> Verdict {
    let all = report.matched;
    if all == 0 {
        return Verdict::done(
            Reason::NoDevices,
            "No device of the tailnet fits spec.deviceSelector now. One that joins is taken up at \
             the next look.",
        );
    }
    if report.conflicted > 0 {
        let message = some(report, report.conflicted, "lost a field", |device| {
            (!device.conflicts.is_empty()).then(|| bound(device).message)
        });
        return if report.working > 0 {
            Verdict::retrying(Reason::Conflicted, message)
        } else {
            Verdict::stalled(Reason::Conflicted, message)
        };
    }
    if report.failed > 0 {
        return failing(report);
    }
    if let Some(verdict) = holding(report).filter(|_| report.working == 0) {
        return verdict;
    }
    if report.working > 0 || report.unread > 0 {
        let message = format!(
            "{} of {all} devices are as declared; the others are being brought to it.",
            report.in_sync
        );
        return Verdict::working(Reason::Progressing, message);
    }
    if let Some(verdict) = deleting(&report.differences) {
        return verdict;
    }
    if report.different > 0 {
        let message = some(report, all - report.in_sync, "wait", |device| {
            (!device.differences.is_empty()).then(|| bound(device).message)
        });
        return Verdict::retrying(Reason::Waiting, message);
    }
    let expired: Vec<_> = report.expired.iter().map(ToString::to_string).collect();
    let expired = match expired.as_slice() {
        [] => String::new(),
        keys => format!(
            " No wish any more, as the expiry has passed: {}.",
            keys.join(", ")
        ),
    };
    let message = match all {
        1 => format!("The one device that fits is as declared.{expired}"),
        _ => format!("All {all} devices are as declared.{expired}"),
    };
    Verdict::done(Reason::InSync, message)
}

/// Where all fail alike it is no partial success: the first failure is the reason.
fn failing(report: &FleetReport) -> Verdict {
    let message = some(report, report.failed, "failed", |device| {
        (!device.failures.is_empty()).then(|| format!("{}: {}", called(device), failures(device)))
    });
    let worst = report.details.iter().find_map(worst);
    match worst.filter(|_| report.failed == report.matched) {
        Some(worst) => Verdict {
            message,
            ..failed(worst)
        },
        None => Verdict::retrying(Reason::PartiallyApplied, message),
    }
}

fn holding(report: &FleetReport) -> Option<Verdict> {
    let held = |device: &DeviceReport| held(device, &called(device));
    let first = report.details.iter().find_map(held)?;
    if first.reason == Reason::Observed {
        let message = format!(
            "{} of {} devices differ; status.pending lists what. Nothing is sent, as the policy only \
             observes: write enforcement: Enforce to remove the differences.",
            report.held, report.matched
        );
        return Some(Verdict { message, ..first });
    }
    let message = some(report, report.held, "wait", |device| {
        held(device).map(|verdict| verdict.message)
    });
    Some(Verdict { message, ..first })
}

/// `3 of 1000 devices failed: …`, with what is to be said of the first of them.
fn some(
    report: &FleetReport,
    how_many: usize,
    what: &str,
    say: impl Fn(&DeviceReport) -> Option<String>,
) -> String {
    let said: Vec<_> = report.details.iter().filter_map(say).take(NAMED).collect();
    format!(
        "{how_many} of {} devices {what}: {}",
        report.matched,
        said.join(" ")
    )
}

fn called(device: &DeviceReport) -> String {
    format!("{} ({})", device.label, device.node)
}

pub(super) fn in_sync(report: &FleetReport) -> Known {
    if report.different > 0 {
        let first = report.differences.iter().take(NAMED);
        let first: Vec<_> = first
            .map(|difference| format!("{}: {}", difference.device, difference.change))
            .collect();
        let total = match report.different {
            1 => "One difference".to_owned(),
            many => format!("{many} differences"),
        };
        return Known::No(format!("{total}: {}", first.join("; ")));
    }
    if report.conflicted > 0 {
        let message = "What another policy decides differs from what is declared here.";
        return Known::No(message.to_owned());
    }
    if report.unread > 0 {
        return Known::NotYet;
    }
    Known::Yes
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &FleetReport) {
    status.matched_devices = Some(count(report.matched));
    status.in_sync_devices = Some(count(report.in_sync));
    status.devices = report.details.iter().map(detail).collect();
    status.pending = report.differences.iter().map(pending).collect();
    status.pending_total = (report.different > 0).then(|| count(report.different));
}

fn detail(device: &DeviceReport) -> DeviceStatus {
    let as_declared =
        device.differences.is_empty() && device.conflicts.is_empty() && !device.unread;
    let wrong = (!as_declared).then(|| bound(device));
    DeviceStatus {
        node_id: device.node.to_string(),
        name: device.label.clone(),
        in_sync: as_declared,
        reason: wrong.as_ref().map(|verdict| verdict.reason.to_string()),
        message: wrong.map(|verdict| verdict.message),
    }
}
