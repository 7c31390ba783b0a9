//! The numbers and the time of the last poll in the status of a tailnet.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{T0, T1, of_tailnet};
use crate::{
    api::TailscaleTailnetStatus, controller::status::settle_poll_time, tailnet::TailnetReport,
};

#[test]
fn the_time_of_the_last_poll_moves_with_another_change_or_every_ten_minutes() {
    let polled = |minutes: i64, devices| TailnetReport {
        devices: Some(devices),
        polled_at: Some(T0 + SignedDuration::from_mins(minutes)),
        ..TailnetReport::default()
    };
    let written = |old: &TailscaleTailnetStatus, minutes, devices| {
        let mut new = of_tailnet(old, &polled(minutes, devices), 1, T0);
        settle_poll_time(&mut new, old);
        new
    };
    let first = written(&TailscaleTailnetStatus::default(), 0, 8);
    assert_eq!(first.last_poll_time, Some(Time(T0)));
    assert_eq!(written(&first, 9, 8), first);
    let minutes = |status: TailscaleTailnetStatus| {
        let polled = status.last_poll_time.unwrap().0;
        polled.duration_since(T0).as_mins()
    };
    assert_eq!(minutes(written(&first, 10, 8)), 10);
    assert_eq!(minutes(written(&first, 1, 9)), 1);
    let outage = TailnetReport {
        polled_at: None,
        ..polled(0, 8)
    };
    assert_eq!(
        of_tailnet(&first, &outage, 1, T1).last_poll_time,
        first.last_poll_time
    );
}
