//! The cluster, two controllers, and the Prometheus that watches them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use super::{
    fleet,
    page::{Page, writes},
    steady::Steady,
};
use crate::{
    e2e::approve::shell,
    monitoring::Prometheus,
    support::{API_KEY, Controller, Stage, eventually, prometheus_program},
};

/// How long a transcript may take to become the one of the page.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an operator looks at.
pub enum Look<'a> {
    /// A command, and what it prints.
    Run(&'a str),
    /// The lines of the log with this, since the incident began.
    Log(&'a str),
    /// The alerts that are pending or firing.
    Alerts,
}

pub struct World {
    pub stage: Stage,
    /// The first one leads.
    pub controllers: Vec<Controller>,
    prometheus: Prometheus,
    page: Page,
    steady: Steady,
    /// The lengths of the logs when the incident began.
    since: Vec<usize>,
}

impl World {
    /// Starts everything. Returns once all policies are in sync.
    pub async fn begin() -> Self {
        // Before the simulator runs on this thread: the first build takes minutes.
        prometheus_program("prometheus", "PROMETHEUS");
        let stage = Stage::with(fleet::devices(), API_KEY).await;
        super::set_policy_file(&stage).await;
        stage.max_changed_devices("10%").await;
        for (name, spec) in [
            ("servers", fleet::SERVERS),
            ("databases", fleet::DATABASES),
            ("laptops", fleet::LAPTOPS),
            ("kiosks", fleet::KIOSKS),
        ] {
            stage.policy(name, spec).await;
        }
        for site in fleet::SITES {
            stage
                .policy(&format!("{site}-router"), &fleet::router(site))
                .await;
        }
        let args = ["--lease-duration=5"];
        let leader = Controller::ready(stage.kubeconfig(), &args, &[]).await;
        leader.logs("leadership won").await;
        let standby = Controller::ready(stage.kubeconfig(), &args, &[]).await;
        let prometheus = Prometheus::scraping(&[leader.address(), standby.address()]).await;
        eventually(Duration::from_secs(40), async || {
            match stage.policies_ready() {
                12 => Ok(()),
                ready => Err(format!("{ready} policies are ready")),
            }
        })
        .await;
        Self {
            stage,
            controllers: vec![leader, standby],
            prometheus,
            page: Page::read(),
            steady: Steady::default(),
            since: vec![0; 2],
        }
    }

    /// From here on, the log belongs to the next incident.
    pub fn next(&mut self) {
        self.since = self.controllers.iter().map(|it| it.log().len()).collect();
    }

    /// Looks until the page has what is seen, for a while. Writes it down.
    pub async fn see(&mut self, key: &str, looks: &[Look<'_>]) {
        if writes() {
            // Longer than a status waits for its policies, and a scrape for the next.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        let begin = Instant::now();
        loop {
            let mut seen = String::new();
            for look in looks {
                seen += &self.look(look).await;
            }
            if writes() || seen == self.page.block(key) || begin.elapsed() > PATIENCE {
                return self.page.seen(key, seen);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Runs a command once, which changes something.
    pub async fn act(&mut self, key: &str, command: &str) {
        let shown = self.look(&Look::Run(command)).await;
        self.page.seen(key, shown);
    }

    async fn look(&mut self, look: &Look<'_>) -> String {
        match look {
            Look::Run(command) => {
                let (code, out, error) = shell(&self.stage, command).await;
                let code = if code == 0 {
                    String::new()
                } else {
                    format!("(exit code {code})\n")
                };
                let said = self.steady.text(&(out + &error));
                format!("$ {command}\n{said}{code}")
            }
            Look::Log(words) => {
                let lines = self.log(words);
                let said = self.steady.text(&lines);
                format!("$ kubectl -n tsdp-system logs deploy/tsdp | grep {words}\n{said}")
            }
            Look::Alerts => self.alerts().await,
        }
    }

    /// Lines of the logs since the incident began, without their times.
    fn log(&self, words: &str) -> String {
        let logs = self.controllers.iter().zip(&self.since);
        let logs: Vec<String> = logs
            .map(|(it, since)| it.log()[*since..].to_owned())
            .collect();
        let lines = logs.iter().flat_map(|log| log.lines());
        let lines = lines.filter(|line| line.contains(words));
        let lines = lines.filter_map(|line| line.split_once(' '));
        let lines = lines.flat_map(|(_, line)| [line.trim_start(), "\n"]);
        lines.collect()
    }

    async fn alerts(&self) -> String {
        let rules = self.prometheus.rules().await.unwrap();
        let mut lines = Vec::new();
        for rule in &rules {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let after = rule["duration"].as_f64().unwrap_or_default() / 60.0;
            for alert in rule["alerts"].as_array().into_iter().flatten() {
                let (name, severity) = (text(&rule["name"]), text(&rule["labels"]["severity"]));
                let summary = text(&alert["annotations"]["summary"]);
                lines.push(format!(
                    "# alert: {name} ({severity}) after {after} min: {summary}\n"
                ));
            }
        }
        if lines.is_empty() {
            lines.push("# alert: none\n".to_owned());
        }
        lines.concat()
    }

    /// All answers are this status from now on.
    pub fn fail(&self, status: u16, headers: &[(&str, &str)]) {
        let mut fault = FaultSpec::new(FaultKind::Status);
        fault.status = Some(status);
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        fault.headers = headers.collect();
        fault.body = Some(
            json!({"message": if status == 429 { "rate limited" } else { "upstream unavailable" }}),
        );
        self.stage.simulator.inject(fault).unwrap();
    }

    /// Waits until the tailnet has this reason.
    pub async fn tailnet_reason(&self, reason: &str) {
        eventually(Duration::from_secs(40), async || {
            let tailnet = self.stage.kubectl.get(&["tstn", "default"]).await;
            let ready = crate::support::condition(&tailnet, "Ready");
            let now = ready.map(|it| it["reason"].clone());
            if now == Some(json!(reason)) {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        })
        .await;
    }

    /// Waits until all policies but so many are ready.
    pub async fn ready(&self, policies: usize) {
        eventually(Duration::from_secs(40), async || {
            match self.stage.policies_ready() {
                ready if ready == policies => Ok(()),
                ready => Err(format!("{ready} policies are ready")),
            }
        })
        .await;
    }

    pub fn close(self) {
        self.page.close();
    }
}
