//! The alerts and the dashboard of the chart use metrics and reasons that exist.

use std::{collections::BTreeSet, fs};

use tsdp::controller::{METRICS, MetricKind};

use crate::support::CHART;

fn files() -> [String; 2] {
    ["alerts.yaml", "dashboard.json"]
        .map(|name| fs::read_to_string(format!("{CHART}/files/{name}")).unwrap())
}

/// The words of the files that may be names of metrics.
fn metrics_used() -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    files()
        .iter()
        .flat_map(|text| text.split(|c| !is_of_name(c)))
        .filter(|word| word.starts_with("tsdp_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_metric_of_alerts_and_dashboard_exists() {
    let used = metrics_used();
    assert!(used.len() >= 6, "{used:?}");
    let of_histogram = ["_bucket", "_count", "_sum"];
    for name in used {
        let base = of_histogram.iter().find_map(|end| name.strip_suffix(end));
        let exists = METRICS.iter().any(|metric| {
            let is_histogram = metric.kind == MetricKind::Histogram;
            metric.name == name || (is_histogram && Some(metric.name) == base)
        });
        assert!(exists, "{name}");
    }
}

#[test]
fn each_reason_of_an_alert_exists() {
    let page = include_str!("../../../docs/reasons.md");
    let [alerts, _] = files();
    // Those of status writes and webhooks are no reasons of a condition.
    let others = ["tsdp_status_write", "tsdp_webhook"];
    let is_other = |line: &&str| others.iter().any(|metric| line.contains(metric));
    let alerts: String = alerts.lines().filter(|line| !is_other(line)).collect();
    let lists = alerts.split("reason").filter_map(|rest| {
        let rest = rest.strip_prefix("=~\"").or(rest.strip_prefix("!~\""))?;
        rest.split('"').next()
    });
    let reasons: BTreeSet<&str> = lists.flat_map(|list| list.split('|')).collect();
    assert!(reasons.contains("LimitHeld"), "{reasons:?}");
    for reason in reasons {
        assert!(page.contains(&format!("\n### {reason}\n")), "{reason}");
    }
}
