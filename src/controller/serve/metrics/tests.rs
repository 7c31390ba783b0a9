use std::time::Duration;

use super::*;
use crate::{
    controller::{
        election::{Election, Timings},
        status::{
            self,
            tests::fixtures::{device, difference, failure, key, report},
        },
    },
    model::Reason,
    plan::{Difference, Hold},
    tailnet::{Backlog, DeviceReport, Retry, State, TailnetReport},
    tailscale::{Budget, Endpoint, Kind},
};

fn bucket() -> Arc<Bucket> {
    Arc::new(Bucket::new(Budget::default()))
}

fn seen(endpoint: Endpoint, status: Option<u16>) -> Observation {
    Observation {
        endpoint,
        status,
        request_id: None,
        failure: (status != Some(200)).then_some(Kind::ServerError),
        duration: Duration::from_millis(200),
    }
}

fn lacks(holds: &[Option<Hold>]) -> State {
    let differences: Vec<Difference> = holds.iter().cloned().map(difference).collect();
    State::Bound(Box::new(DeviceReport {
        differences,
        ..device()
    }))
}

/// A policy reports this state.
fn policy(metrics: &Metrics, name: &str, state: State) {
    let report = report(state);
    let old = crate::api::TailscaleDevicePolicyStatus::default();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let conditions = status::of_policy(&old, &report, "home", now).conditions;
    metrics.policy("home", &key(name), &conditions, &report);
}

/// Metrics of which each has a series.
fn all() -> Metrics {
    let metrics = Metrics::new(1, Arc::default());
    metrics
        .values
        .readiness
        .watch("policies".to_owned())
        .failed("gone");
    let home = metrics.declare("home");
    home.declared(Some(Duration::from_mins(1)));
    let observe = metrics.observer("home", bucket());
    observe(&seen(Endpoint::Devices, Some(200)));
    observe(&seen(Endpoint::SetTags, Some(429)));
    observe(&seen(Endpoint::SetTags, None));
    home.changed(&difference(None));
    home.webhook();
    home.planned(Duration::from_micros(50));
    home.reconciled(Duration::from_millis(20));
    home.waits(Backlog {
        devices: 3,
        ..Backlog::default()
    });
    home.reported(&TailnetReport {
        failure: Some(failure(Reason::ApiUnreachable, Retry::Later)),
        devices: Some(7),
        changed: Some(2),
        change_limit: Some(5),
        ..TailnetReport::default()
    });
    policy(&metrics, "a", lacks(&[None, Some(Hold::Protected)]));
    metrics.policy_matches(&key("a"), 1);
    metrics.status_written();
    metrics.status_not_written(StatusFailure::Forbidden);
    metrics.webhook_rejected(Rejection::Old);
    metrics
}

/// The series whose name begins with this.
fn series(metrics: &Metrics, name: &str) -> Vec<String> {
    let page = metrics.encode();
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

fn labels(line: &str) -> Vec<&str> {
    let Some((_, rest)) = line.split_once('{') else {
        return Vec::new();
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, _)| name)
        .filter(|name| *name != "le")
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn each_metric_is_scraped_as_it_is_defined() {
    let (leadership, _election) = candidate();
    let metrics = all();
    let page = metrics.encode();
    for defined in define::METRICS {
        let family = defined
            .name
            .trim_end_matches("_total")
            .trim_end_matches("_info");
        let kind = format!("# TYPE {family} {}\n", defined.kind.as_str());
        assert!(page.contains(&kind), "no {kind}");
        if let Some(unit) = defined.unit() {
            assert!(
                page.contains(&format!("# UNIT {family} {unit}\n")),
                "{family}"
            );
        }
        let mut lines = page.lines().filter(|line| {
            let rest = line.strip_prefix(defined.name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
        });
        // Who leads is known only in a process that elects.
        if defined.name == define::LEADER.name {
            continue;
        }
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no {}", defined.name));
        assert_eq!(labels(line), defined.labels, "{line}");
    }
    let types = page
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .count();
    assert_eq!(types, define::METRICS.len(), "{page}");
    metrics.elects("tsdp-system/tsdp".to_owned(), leadership);
    assert_eq!(
        series(&metrics, "tsdp_leader{"),
        ["tsdp_leader{lease=\"tsdp-system/tsdp\"} 0"]
    );
}

fn candidate() -> (Leadership, Election) {
    crate::tailscale::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    Election::new(client, "tsdp-system", "tsdp", "a", Timings::default())
}

#[test]
fn a_standby_has_no_state_of_tailnets_and_policies() {
    let (leadership, _election) = candidate();
    let metrics = all();
    assert!(!series(&metrics, "tsdp_devices{").is_empty());
    metrics.elects("tsdp-system/tsdp".to_owned(), leadership);
    for state in [
        "tsdp_devices{",
        "tsdp_policies{",
        "tsdp_policy_m",
        "tsdp_circuit_open{",
    ] {
        assert!(series(&metrics, state).is_empty(), "{state}");
    }
    assert!(!series(&metrics, "tsdp_api_request_duration_seconds_count{").is_empty());
}

#[test]
fn a_new_term_starts_without_the_reports_of_an_earlier_one() {
    let metrics = all();
    metrics.forget_reports();
    for state in ["tsdp_devices{", "tsdp_policies{", "tsdp_policy_matched"] {
        assert!(series(&metrics, state).is_empty(), "{state}");
    }
    policy(&metrics, "a", lacks(&[]));
    assert_eq!(
        series(&metrics, "tsdp_policies{"),
        ["tsdp_policies{tailnet=\"home\",ready=\"true\",reason=\"InSync\"} 1"]
    );
}

#[test]
fn series_of_a_deleted_tailnet_go_away_and_do_not_return() {
    let metrics = all();
    let late = metrics.observer("home", bucket());
    metrics.tailnet_gone("home");
    metrics.policy_gone(&key("a"));
    late(&seen(Endpoint::Devices, Some(200)));
    // A connection that is made while the tailnet is deleted.
    metrics.observer("home", bucket())(&seen(Endpoint::Devices, Some(200)));
    let page = metrics.encode();
    assert!(!page.contains("tailnet=\"home\""), "{page}");
}

#[test]
fn policies_are_counted_by_state_and_their_changes_by_reason() {
    let metrics = Metrics::default();
    let approval = || Some(Hold::Approval(None));
    policy(&metrics, "a", lacks(&[approval(), approval(), None]));
    policy(&metrics, "b", lacks(&[approval()]));
    policy(&metrics, "c", lacks(&[]));
    let policies = |ready: &str, reason: &str, count: usize| {
        format!("tsdp_policies{{tailnet=\"home\",ready=\"{ready}\",reason=\"{reason}\"}} {count}")
    };
    let held = "AwaitingApproval";
    assert_eq!(
        series(&metrics, "tsdp_policies{"),
        [policies("false", held, 2), policies("true", "InSync", 1)]
    );
    let pending = |what: &str, held: bool, reason: &str, count: usize| {
        let labels = format!("tailnet=\"home\",held=\"{held}\",reason=\"{reason}\"");
        format!("tsdp_pending_{what}{{{labels}}} {count}")
    };
    let expected = |what: &str, held: usize| {
        [
            pending(what, false, "Progressing", 1),
            pending(what, true, "AwaitingApproval", held),
        ]
    };
    assert_eq!(
        series(&metrics, "tsdp_pending_changes{"),
        expected("changes", 3)
    );
    assert_eq!(
        series(&metrics, "tsdp_pending_devices{"),
        expected("devices", 2)
    );

    // While the tailnet cannot be read, what was known last stays.
    let down = State::Unavailable(failure(Reason::ApiUnreachable, Retry::Later));
    policy(&metrics, "a", down);
    assert_eq!(
        series(&metrics, "tsdp_pending_changes{"),
        expected("changes", 3)
    );
    policy(&metrics, "a", lacks(&[]));
    metrics.policy_gone(&key("b"));
    assert_eq!(
        series(&metrics, "tsdp_policies{"),
        [policies("true", "InSync", 2)]
    );
    assert!(series(&metrics, "tsdp_pending_").is_empty());
}

#[test]
fn unknown_numbers_of_a_tailnet_stay_as_they_were() {
    let metrics = all();
    let home = metrics.tailnet("home").unwrap();
    home.reported(&TailnetReport::default());
    assert_eq!(
        series(&metrics, "tsdp_devices{"),
        ["tsdp_devices{tailnet=\"home\"} 7"]
    );
    let reachable = "tsdp_tailnet_reachable{tailnet=\"home\"} 1";
    assert_eq!(series(&metrics, "tsdp_tailnet_reachable{"), [reachable]);
    assert!(series(&metrics, "tsdp_tailnet_failure{").is_empty());
    assert_eq!(
        series(&metrics, "tsdp_circuit_open{"),
        ["tsdp_circuit_open{tailnet=\"home\"} 0"]
    );
}
