use super::*;
use crate::{model::Route, plan::ChangeCause, tailnet::tests::key};

fn id() -> NodeId {
    "n1CNTRL".parse().unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn routes() -> RouteSet {
    let route: Route = "10.0.0.0/8".parse().unwrap();
    [route].into_iter().collect()
}

fn backoff() -> Backoff {
    Backoff::example(at(9))
}

#[test]
fn a_list_counts_only_if_it_was_requested_after_the_last_answer() {
    let mut device = DeviceState::default();
    device.request_sent(Scope::Device);
    assert!(device.is_newer_than(7));
    device.request_finished(Scope::Device, 7);
    assert!(!device.is_busy());
    assert!(device.is_newer_than(6) && !device.is_newer_than(7));
}

#[test]
fn a_list_counts_although_its_attributes_or_routes_were_read_since() {
    let mut device = DeviceState::default();
    device.request_sent(Scope::Attributes);
    assert!(device.is_busy() && !device.is_newer_than(6));
    device.request_finished(Scope::Attributes, 7);
    assert!(!device.is_newer_than(6) && !device.has_newer_routes(6));
    device.request_sent(Scope::Routes);
    device.request_finished(Scope::Routes, 8);
    assert!(!device.is_busy() && !device.is_newer_than(7));
    assert!(device.has_newer_routes(7) && !device.has_newer_routes(8));
}

#[test]
fn policies_that_target_it_and_those_that_clear_it_may_send_requests() {
    let mut device = DeviceState::default();
    device.adopt(&key("a"), false);
    assert!(device.begin_clearing(&key("b")) && !device.begin_clearing(&key("b")));
    assert!(device.all_policies().eq([&key("a"), &key("b")]));
    device.release(&key("a"));
    device.end_clearing(&key("b"));
    assert_eq!(device.all_policies().count(), 0);
}

#[test]
fn routes_that_lists_lack_are_known_from_the_last_read() {
    let mut device = DeviceState::default();
    device.set_plan(
        DevicePlan {
            routes_unread: true,
            ..DevicePlan::default()
        },
        |_| ChangeCause::Declared,
    );
    let unread = Device {
        enabled_routes: None,
        ..Device::plain(id())
    };
    assert_eq!(
        device.with_known_routes(unread.clone()).enabled_routes,
        None
    );
    device.take_routes(&routes(), at(1), at(2));
    assert_eq!(device.routes_read_at(), Some(at(1)));
    let known = device.with_known_routes(unread.clone());
    assert_eq!(known.enabled_routes, Some(routes()));
    let call = Call::SetRoutes(id(), RouteSet::new());
    device.apply(&id(), &call);
    assert_eq!(device.routes_read_at(), None);
    let known = device.with_known_routes(unread.clone());
    assert_eq!(known.enabled_routes, Some(RouteSet::new()));
    // A list that has the routes itself ends the need for reads of their own.
    device.with_known_routes(known);
    assert_eq!(device.with_known_routes(unread).enabled_routes, None);
}

#[test]
fn after_a_lost_answer_what_it_may_have_changed_is_in_question_until_it_is_read() {
    let mut device = DeviceState::default();
    device.require_read_after(&Call::WriteAttributes(std::collections::BTreeMap::new()));
    assert!(device.is_in_question() && !device.note_listed());
    device.take_attributes(Attributes::new(), at(1));
    assert!(!device.is_in_question());
    device.require_read_after(&Call::SetRoutes(id(), routes()));
    assert!(device.is_in_question() && device.note_listed());
    assert!(!device.is_in_question());
}

#[test]
fn a_write_outdates_the_reads_that_requests_depend_on() {
    let mut device = DeviceState::default();
    device.take_device(Device::plain(id()), at(1));
    assert!(device.was_just_read(at(5), at(2)));
    device.outdate_reads();
    assert!(!device.was_just_read(at(5), at(2)) && device.read_at().is_none());
}

#[test]
fn another_connection_forgets_what_was_read_and_every_failure() {
    let mut device = DeviceState::default();
    device.take_attributes(Attributes::new(), at(1));
    device.read_failed(&Request::Device(id()), backoff());
    device.require_attributes();
    device.forget_reads();
    assert!(device.attributes().is_none());
    assert!(device.read_backoff(&Request::Device(id())).is_none());
    // What must be read is still to be read.
    assert!(device.is_in_question());
}

#[test]
fn only_failures_of_reads_that_are_needed_are_reported() {
    let mut device = DeviceState::default();
    device.read_failed(&Request::Attributes(id()), backoff());
    device.read_failed(&Request::Device(id()), backoff());
    assert_eq!(device.reads_in_force().count(), 0);
    device.require_read();
    assert_eq!(device.failures(&key("a")).count(), 1);
}
