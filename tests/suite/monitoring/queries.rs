//! Every query of the dashboard and of the alerts has data in a real run.

use std::{collections::BTreeMap, time::Duration};

use super::{
    alerts::alerts, dashboard::panels, incidents::Incidents, picture, scraper::Prometheus,
};
use crate::support::eventually;

/// Alerts that must not fire in this run, and why. All other ones must be pending or firing.
const QUIET: [(&str, &str); 8] = [
    ("TsdpAbsent", "the controller is scraped"),
    ("TsdpNoLeader", "it leads"),
    (
        "TsdpTailnetUnreachable",
        "the lab has no credential, which has an alert of its own",
    ),
    ("TsdpPollOld", "it polls each second"),
    ("TsdpDriftRepeated", "two corrections are not more than ten"),
    ("TsdpBudgetExhausted", "the budget has room"),
    ("TsdpWatchFailing", "no watch fails"),
    (
        "TsdpStatusNotWritten",
        "the Kubernetes API takes all writes but those over an old version",
    ),
];

/// What this run must show, exactly.
const SHOWN: [&str; 10] = [
    r#"sum(tsdp_leader{lease="tsdp-system/tsdp"}) == 1"#,
    r#"tsdp_tailnet_failure{tailnet="lab", reason="CredentialsMissing"} == 1"#,
    r#"tsdp_circuit_open{tailnet="lab"} == 1 and on () tsdp_circuit_open{tailnet="default"} == 0"#,
    r#"tsdp_unreadable_devices{tailnet="default"} == 1"#,
    r#"tsdp_change_limit_devices{tailnet="default"} == 20"#,
    r#"tsdp_policies{tailnet="default", ready="false", reason="DeviceNotFound"} == 1"#,
    r#"tsdp_pending_devices{tailnet="default", held="true", reason="LimitHeld"} == 40"#,
    r#"tsdp_pending_changes{tailnet="default", held="false", reason="Observed"} == 1"#,
    r#"tsdp_changes_total{tailnet="default", field="tags", cause="Drift"} == 2"#,
    r#"tsdp_webhook_rejections_total{reason="Forged"} == 8"#,
];

/// How long the run of the picture takes.
const PICTURE_SECONDS: u64 = 150;

async fn all_have_data(prometheus: &Prometheus, queries: &[String]) {
    for query in queries {
        eventually(Duration::from_secs(40), async || {
            let series = prometheus.now(query).await?;
            if series.is_empty() {
                return Err(format!("no data for {query}"));
            }
            Ok(())
        })
        .await;
    }
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("tsdp_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn each_query_of_dashboard_and_alerts_has_data_in_a_real_run() {
    let mut incidents = Incidents::begin().await;
    let prometheus = Prometheus::scraping(&[incidents.controller.address()]).await;
    // Scraped before the first incident: a counter that begins at 1 has not increased.
    let zero =
        "tsdp_leader == 1 and on (instance) tsdp_api_rate_limited_total{tailnet=\"default\"} == 0";
    all_have_data(&prometheus, &[zero.to_owned()]).await;
    incidents.declare().await;
    incidents.drift().await;
    incidents.limit_rate().await;
    incidents.webhooks().await;
    incidents.drift().await;

    let panels = panels();
    let queries: Vec<String> = panels
        .iter()
        .flat_map(|panel| panel.queries.iter().map(|(query, _)| query.clone()))
        .collect();
    assert!(queries.len() > 30, "{queries:?}");
    all_have_data(&prometheus, &queries).await;

    all_have_data(&prometheus, &SHOWN.map(str::to_owned)).await;
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        all_have_data(&prometheus, &metrics(expression)).await;
    }
    the_right_alerts_fire(&prometheus).await;
    if std::env::var_os("TSDP_PICTURE").is_some() {
        incidents.go_on(PICTURE_SECONDS).await;
        picture::write(&prometheus, &panels, PICTURE_SECONDS).await;
    }
}

async fn the_right_alerts_fire(prometheus: &Prometheus) {
    eventually(Duration::from_secs(40), async || {
        let rules = prometheus.rules().await?;
        if rules.len() != alerts().len() {
            return Err(format!("{} rules", rules.len()));
        }
        let wrong: BTreeMap<&str, String> = rules
            .iter()
            .filter_map(|rule| {
                let name = rule["name"].as_str()?;
                let is_quiet = QUIET.iter().any(|(quiet, _)| *quiet == name);
                let is_right = rule["health"] == "ok" && (rule["state"] == "inactive") == is_quiet;
                (!is_right).then(|| (name, rule.to_string()))
            })
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{wrong:#?}"))
        }
    })
    .await;
}
