//! The alerts and the dashboard of the chart use metrics and reasons that exist.

use std::{collections::BTreeSet, fs};

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
    let code = include_str!("../../../src/controller/serve/metrics.rs");
    let page = include_str!("../../../docs/metrics.md");
    let used = metrics_used();
    assert!(used.len() >= 6, "{used:?}");
    for metric in used {
        let name = metric.trim_start_matches("tsdp_");
        // The encoder gives counters their suffix.
        let registered = name.trim_end_matches("_total");
        assert!(code.contains(&format!("\"{registered}\"")), "{metric}");
        assert!(page.contains(&format!("`{metric}`")), "{metric}");
    }
}

#[test]
fn each_reason_of_an_alert_exists() {
    let page = include_str!("../../../docs/reasons.md");
    let [alerts, _] = files();
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
