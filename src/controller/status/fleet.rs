//! The status of a policy with a selector.

use super::{
    Known, ReadyState, bound, conditions::Progress, count, counted, deleting, failed, failures,
    held, pending, worst,
};
use crate::{
    api::{DeviceStatus, Reason, TailscaleDevicePolicyStatus},
    controller::write::status_writer::flapping,
    tailnet::{DeviceReport, SelectorReport},
};

/// The number of devices that a condition names.
const NAMED: usize = 3;

pub(super) fn ready_state(report: &SelectorReport) -> ReadyState {
    let mut ready = of_matched(report);
    if let Some(selector_errors) = &report.selector_errors {
        let (them, first) = match selector_errors.count {
            1 => ("it", "It"),
            _ => ("them", "The first"),
        };
        let reported = format!(
            " spec.deviceSelector.expression cannot be evaluated for {}, so that the policy does not target \
             {them}. {first} is {} ({}): {}.",
            counted(selector_errors.count, "device"),
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
        many => format!(
            " The same applies to {}.",
            counted(many - 1, "other device")
        ),
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
            ["has an overridden field", "have an overridden field"],
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
            "{} in sync; the controller is applying the desired state to the others.",
            of_all(report, report.in_sync, ["is", "are"])
        );
        return ReadyState::working(Reason::Progressing, message);
    }
    if let Some(ready) = deleting(&report.differences) {
        return ready;
    }
    if report.out_of_sync > 0 {
        let not_ready = ["is not ready", "are not ready"];
        let message = some(report, all - report.in_sync, not_ready, |device| {
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
    let message = some(report, report.failed, ["failed"; 2], |device| {
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
            "{} out of sync; status.pending lists the differences. Nothing is sent, as the policy only \
             observes. Write enforcement: Enforce to apply the desired state.",
            of_all(report, report.held, ["is", "are"])
        );
        return Some(ReadyState { message, ..first });
    }
    let message = some(report, report.held, ["is held", "are held"], |device| {
        held(device).map(|ready| ready.message)
    });
    Some(ReadyState { message, ..first })
}

/// `3 of 1000 devices are held: …`, with details of the first of them.
fn some(
    report: &SelectorReport,
    how_many: usize,
    one_many: [&str; 2],
    say: impl Fn(&DeviceReport) -> Option<String>,
) -> String {
    let message: Vec<_> = report.details.iter().filter_map(say).take(NAMED).collect();
    let subject = of_all(report, how_many, one_many);
    format!("{subject}: {}", message.join(" "))
}

/// `1 of 1000 devices is held`: the verb follows the first number, the noun the second.
fn of_all(report: &SelectorReport, how_many: usize, [one, many]: [&str; 2]) -> String {
    let verb = if how_many == 1 { one } else { many };
    format!("{how_many} of {} {verb}", counted(report.matched, "device"))
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
