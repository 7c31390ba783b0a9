//! The tables in docs/metrics.md are generated from the definitions of the metrics.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use tsdp::controller::{METRICS, MetricDefinition};

use crate::support::assert_generated;

const PAGE: &str = "docs/metrics.md";
const BEGIN: &str =
    "<!-- Written by .ci/generate from src/controller/serve/metrics/definition.rs -->\n";
const END: &str = "<!-- End of what is written by .ci/generate -->\n";

/// The name of the group that a metric belongs to in the page.
fn group(metric: &MetricDefinition) -> &'static str {
    match metric.name {
        name if name.starts_with("process_") => "The process",
        "tsdp_build_info" | "tsdp_leader" | "tsdp_watch_restarts_total" => "The controller",
        name if name.starts_with("tsdp_status_") || name.starts_with("tsdp_webhook_") => {
            "The controller"
        }
        name if name.starts_with("tsdp_polic")
            || name.starts_with("tsdp_pending_")
            || name == "tsdp_changes_total" =>
        {
            "Policies and changes"
        }
        name if name.starts_with("tsdp_api_")
            || name.starts_with("tsdp_request_budget_")
            || name == "tsdp_circuit_open" =>
        {
            "Requests to the Tailscale API"
        }
        name if name.ends_with("_duration_seconds") || name == "tsdp_queue_length" => {
            "The work of the controller"
        }
        _ => "Tailnets",
    }
}

const GROUPS: [&str; 6] = [
    "Tailnets",
    "Policies and changes",
    "Requests to the Tailscale API",
    "The work of the controller",
    "The controller",
    "The process",
];

fn tables() -> String {
    let mut text = String::new();
    for name in GROUPS {
        let _ = write!(
            text,
            "\n## {name}\n\n| metric | type | labels | meaning | series |\n|---|---|---|---|---|\n"
        );
        for metric in METRICS.iter().filter(|metric| group(metric) == name) {
            let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
            let unit = metric
                .unit()
                .map_or(String::new(), |unit| format!(", {unit}"));
            let _ = writeln!(
                text,
                "| `{}` | {}{unit} | {} | {} | {} |",
                metric.name,
                metric.kind.as_str(),
                labels.join(", "),
                metric.meaning,
                metric.series
            );
        }
    }
    text
}

#[test]
fn generated_tables_of_metrics_are_up_to_date() {
    let page = fs::read_to_string(format!("{}/{PAGE}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let tables = tables();
    assert_generated(PAGE, &format!("{before}{BEGIN}{tables}\n{END}{after}"));
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(names.insert(name), "{name} is defined twice");
        assert!(
            name.starts_with("tsdp_") || name.starts_with("process_"),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            metric.kind.as_str() == "counter",
            "{name}"
        );
        assert!(
            !name.contains("milli") && !name.contains("micro"),
            "{name}: not a base unit"
        );
        assert!(
            !metric.meaning.is_empty() && !metric.series.is_empty(),
            "{name}"
        );
    }
}
