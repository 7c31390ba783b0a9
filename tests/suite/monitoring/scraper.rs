//! A real Prometheus that scrapes the controller.

use std::{fs, process::Stdio, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{eventually, prometheus_program};

/// Prometheus as a process, killed when dropped.
pub struct Prometheus {
    _child: Child,
    url: String,
    _folder: TempDir,
}

/// A scrape each second: a test must not take minutes.
const CONFIGURATION: &str = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n\
     rule_files: [RULES]\n\
     scrape_configs: [{job_name: tsdp, static_configs: [{targets: [TARGETS]}]}]\n";

impl Prometheus {
    /// Starts it with the alerts of the repository, for the controllers at these addresses.
    pub async fn scraping(targets: &[&str]) -> Self {
        let program = prometheus_program("prometheus", "PROMETHEUS");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let rules = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/deploy/helm/tsdp/files/alerts.yaml"
        );
        let configuration = CONFIGURATION
            .replace("TARGETS", &targets.join(", "))
            .replace("RULES", rules);
        fs::write(path("prometheus.yaml"), configuration).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = Command::new(program)
            .arg(format!(
                "--config.file={}",
                path("prometheus.yaml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            // Where the pages of its own interface would be, which is not built.
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = eventually(Duration::from_secs(30), async || {
            let log = fs::read_to_string(path("log")).unwrap();
            let line = log.lines().find(|line| line.contains("Listening on"));
            let address = line.and_then(|line| line.split("address=").nth(1));
            let address = address.and_then(|rest| rest.split_whitespace().next());
            address.map(str::to_owned).ok_or(log)
        })
        .await;
        Self {
            _child: child,
            url: format!("http://{address}/api/v1"),
            _folder: folder,
        }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("{}{path}", self.url)).query(query);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        if answer["status"] != "success" {
            return Err(answer.to_string());
        }
        Ok(answer["data"].clone())
    }

    /// The series of a query now, without those whose value is NaN.
    pub async fn now(&self, query: &str) -> Result<Vec<Value>, String> {
        let data = self.get("/query", &[("query", query)]).await?;
        let series = data["result"].as_array().ok_or("no series")?;
        let is_number = |it: &&Value| it["value"][1] != "NaN";
        Ok(series.iter().filter(is_number).cloned().collect())
    }

    /// The series of a query over the last seconds.
    pub async fn over(&self, query: &str, seconds: i64) -> Result<Vec<Value>, String> {
        let now = jiff::Timestamp::now().as_second();
        let (start, end) = ((now - seconds).to_string(), now.to_string());
        let step = (seconds / 60).max(1).to_string();
        let range = [
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        let data = self.get("/query_range", &range).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// The state of each alert, and why it could not be evaluated, if so.
    pub async fn rules(&self) -> Result<Vec<Value>, String> {
        let data = self.get("/rules", &[]).await?;
        let rules = data["groups"][0]["rules"].as_array();
        Ok(rules.cloned().unwrap_or_default())
    }
}
