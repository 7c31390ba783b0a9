//! The status of a policy with a selector.

use super::{Known, ReadyState, bound, count, deleting, failed, failures, held, pending, worst};
use crate::{
    api::{DeviceStatus, Reason, TailscaleDevicePolicyStatus},
    controller::{conditions::Progress, reporter::flapping},
    tailnet::{DeviceReport, SelectorReport},
};

/// The number of devices that a condition names.
const NAMED: usize = 3;

pub(super) fn ready_state(report: &SelectorReport) -> ReadyState {
    let mut ready = of_matched(report);
    if let Some(selector_errors) = &report.selector_errors {
        let devices = if selector_errors.count == 1 {
            "device"
        } else {
            "devices"
        };
        let reported = format!(
            " spec.deviceSelector.expression cannot be evaluated for {} {devices}, so that the policy does \
             not target them. The first is {} ({}): {}.",
            selector_errors.count,
            selector_errors.label,
            selector_errors.node,
            selector_errors.error
        );
        ready.message += &reported;
    }
    let Some(first) = &report.flapping else {
        return ready;
    };
    let reported = flapping(&first.node, &first.label);
    let others = match first.count {
        1 => String::new(),
        many => format!(" The same applies to {} other devices.", many - 1),
    };
    if ready.progress == Progress::Done {
        return ReadyState::retrying(Reason::Contested, format!("{reported}{others}"));
    }
    ready.message = format!("{} {reported}{others}", ready.message);
    ready
}

fn of_matched(report: &SelectorReport) -> ReadyState {
    let all = report.matched;
    if all == 0 {
        return ReadyState::done(
            Reason::NoDevices,
            "No device of the tailnet matches spec.deviceSelector now. The policy adopts one that joins \
             at the next poll.",
        );
    }
    if report.conflicted > 0 {
        let message = some(
            report,
            report.conflicted,
            "have an overridden field",
            |device| (!device.conflicts.is_empty()).then(|| bound(device).message),
        );
        return if report.working > 0 {
            ReadyState::retrying(Reason::Conflicted, message)
        } else {
            ReadyState::stalled(Reason::Conflicted, message)
        };
    }
    if report.failed > 0 {
        return failing(report);
    }
    if let Some(ready) = holding(report).filter(|_| report.working == 0) {
        return ready;
    }
    if report.working > 0 || report.unread > 0 {
        let message = format!(
            "{} of {all} devices are in sync; the controller is applying the desired state to the others.",
            report.in_sync
        );
        return ReadyState::working(Reason::Progressing, message);
    }
    if let Some(ready) = deleting(&report.differences) {
        return ready;
    }
    if report.out_of_sync > 0 {
        let message = some(report, all - report.in_sync, "are not ready", |device| {
            (!device.differences.is_empty()).then(|| bound(device).message)
        });
        return ReadyState::retrying(Reason::DependencyNotReady, message);
    }
    let expired: Vec<_> = report.expired.iter().map(ToString::to_string).collect();
    let expired = match expired.as_slice() {
        [] => String::new(),
        keys => format!(
            " No longer declared, as the expiry has passed: {}.",
            keys.join(", ")
        ),
    };
    let message = match all {
        1 => format!("The one matching device is in sync.{expired}"),
        _ => format!("All {all} devices are in sync.{expired}"),
    };
    ReadyState::done(Reason::InSync, message)
}

/// If all devices fail, the success is not partial: the first failure is the reason.
fn failing(report: &SelectorReport) -> ReadyState {
    let message = some(report, report.failed, "failed", |device| {
        (!device.failures.is_empty()).then(|| format!("{}: {}", called(device), failures(device)))
    });
    let worst = report.details.iter().find_map(worst);
    match worst.filter(|_| report.failed == report.matched) {
        Some(worst) => ReadyState {
            message,
            ..failed(worst)
        },
        None => ReadyState::retrying(Reason::PartiallyApplied, message),
    }
}

fn holding(report: &SelectorReport) -> Option<ReadyState> {
    let held = |device: &DeviceReport| held(device, &called(device));
    let first = report.details.iter().find_map(held)?;
    if first.reason == Reason::Observed {
        let message = format!(
            "{} of {} devices are out of sync; status.pending lists the differences. Nothing is sent, as \
             the policy only observes. Write enforcement: Enforce to apply the desired state.",
            report.held, report.matched
        );
        return Some(ReadyState { message, ..first });
    }
    let message = some(report, report.held, "are held", |device| {
        held(device).map(|ready| ready.message)
    });
    Some(ReadyState { message, ..first })
}

/// `3 of 1000 devices failed: …`, with details of the first of them.
fn some(
    report: &SelectorReport,
    how_many: usize,
    what: &str,
    say: impl Fn(&DeviceReport) -> Option<String>,
) -> String {
    let message: Vec<_> = report.details.iter().filter_map(say).take(NAMED).collect();
    format!(
        "{how_many} of {} devices {what}: {}",
        report.matched,
        message.join(" ")
    )
}

fn called(device: &DeviceReport) -> String {
    format!("{} ({})", device.label, device.node)
}

pub(super) fn in_sync(report: &SelectorReport) -> Known {
    if report.out_of_sync > 0 {
        let first = report.differences.iter().take(NAMED);
        let first: Vec<_> = first
            .map(|difference| format!("{}: {}", difference.device, difference.change))
            .collect();
        let total = match report.out_of_sync {
            1 => "One difference".to_owned(),
            many => format!("{many} differences"),
        };
        return Known::No(format!("{total}: {}", first.join("; ")));
    }
    if report.conflicted > 0 {
        let message = "Another policy overrides a field that this policy declares.";
        return Known::No(message.to_owned());
    }
    if report.unread > 0 {
        return Known::NotYet;
    }
    Known::Yes
}

pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &SelectorReport) {
    status.matched_devices = Some(count(report.matched));
    status.in_sync_devices = Some(count(report.in_sync));
    status.devices = report.details.iter().map(detail).collect();
    status.pending = report.differences.iter().map(pending).collect();
    status.pending_total = (report.out_of_sync > 0).then(|| count(report.out_of_sync));
}

fn detail(device: &DeviceReport) -> DeviceStatus {
    let as_declared =
        device.differences.is_empty() && device.conflicts.is_empty() && !device.unread;
    let wrong = (!as_declared).then(|| bound(device));
    DeviceStatus {
        node_id: device.node.to_string(),
        name: device.label.clone(),
        in_sync: as_declared,
        reason: wrong.as_ref().map(|ready| ready.reason.to_string()),
        message: wrong.map(|ready| ready.message),
    }
}
