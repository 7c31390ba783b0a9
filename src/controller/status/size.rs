//! The size of a status: values of any length must not make it too large to store and to list.

use crate::api::TailscaleDevicePolicyStatus;

/// The most bytes of a status as JSON.
const MAX_BYTES: usize = 16 * 1024;

/// Leaves out the last devices, and then the last pending changes, until the status has its size. Their totals
/// stay exact.
pub(super) fn fit(status: &mut TailscaleDevicePolicyStatus) {
    while size(status) >= MAX_BYTES {
        // The devices first: a pending change says what to do.
        if status.devices.pop().is_none() && status.pending.pop().is_none() {
            return;
        }
    }
}

fn size(status: &TailscaleDevicePolicyStatus) -> usize {
    // A status is written as JSON in any case, so that it has a size.
    serde_json::to_string(status).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PendingChange;

    #[test]
    fn pending_changes_with_long_values_leave_a_status_of_16_kib() {
        let change = PendingChange {
            device: "n1CNTRL".to_owned(),
            name: "router".to_owned(),
            field: "enabledRoutes".to_owned(),
            before: "10.0.0.0/16,".repeat(100),
            after: "none".to_owned(),
            reason: "declared".to_owned(),
            disruptive: None,
            held: None,
        };
        let mut status = TailscaleDevicePolicyStatus {
            pending: vec![change; 20],
            pending_total: Some(20),
            ..TailscaleDevicePolicyStatus::default()
        };
        fit(&mut status);
        assert!(size(&status) < MAX_BYTES);
        assert!(status.pending.len() > 5, "{}", status.pending.len());
        assert_eq!(status.pending_total, Some(20));
    }
}
