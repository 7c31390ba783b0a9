//! How Flux reads an object: kstatus, the health check expressions, and Flux's rules for its own statuses.

use cel::{Context, Program};
use serde::Deserialize;
use serde_json::Value;

use crate::support::condition;

/// The kstatus of an object of a custom resource: `Compute` of cli-utils (pkg/kstatus/status), in its
/// order. The first match decides.
pub fn kstatus(object: &Value) -> &'static str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    if is_outdated(object) {
        return "InProgress";
    }
    let conditions = object["status"]["conditions"].as_array();
    for condition in conditions.into_iter().flatten() {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return "InProgress",
            (Some("Stalled"), Some("True")) => return "Failed",
            _ => {}
        }
    }
    match condition(object, "Ready") {
        Some(ready) if ready["status"] != "True" => "InProgress",
        _ => "Current",
    }
}

fn is_outdated(object: &Value) -> bool {
    let observed = &object["status"]["observedGeneration"];
    !observed.is_null() && *observed != object["metadata"]["generation"]
}

/// An entry of `healthCheckExprs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expressions {
    pub api_version: String,
    pub kind: String,
    pub current: String,
    pub failed: String,
}

impl Expressions {
    /// The expressions of the example.
    pub fn of_the_example() -> Vec<Self> {
        let text = include_str!("../../../deploy/gitops/flux/policies.yaml");
        let example: Value = serde_yaml::from_str(text).unwrap();
        serde_json::from_value(example["spec"]["healthCheckExprs"].clone()).unwrap()
    }

    /// As `StatusEvaluator` (fluxcd/pkg, runtime/cel) does: an outdated status is in progress; then
    /// `failed`, then `current`; in progress if neither is true. An error counts until the timeout.
    pub fn evaluate(&self, object: &Value) -> Result<&'static str, String> {
        if is_outdated(object) {
            return Ok("InProgress");
        }
        for (expression, status) in [(&self.failed, "Failed"), (&self.current, "Current")] {
            if evaluate(expression, object)? {
                return Ok(status);
            }
        }
        Ok("InProgress")
    }
}

fn evaluate(expression: &str, object: &Value) -> Result<bool, String> {
    let program = Program::compile(expression).map_err(|error| error.to_string())?;
    let mut context = Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable(name.as_str(), value).unwrap();
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(result)) => Ok(result),
        Ok(other) => Err(format!("{expression}: not a boolean: {other:?}")),
        Err(error) => Err(format!("{expression}: {error}")),
    }
}

/// FAIL0001 to FAIL0007 of fluxcd/pkg (runtime/conditions/check).
pub fn broken_rule(object: &Value) -> Option<&'static str> {
    let status = |kind| condition(object, kind).and_then(|it| it["status"].as_str());
    let (ready, reconciling, stalled) = (status("Ready"), status("Reconciling"), status("Stalled"));
    let is_ready = ready == Some("True");
    let observed = object["status"]["observedGeneration"].as_i64();
    let generation = object["metadata"]["generation"].as_i64();
    let rules = [
        (
            "FAIL0001: Reconciling or Stalled beside Ready=True",
            is_ready && [reconciling, stalled].contains(&Some("True")),
        ),
        ("FAIL0002: no Ready", ready.is_none()),
        // The rule is for the result of a complete reconcile. While one is in progress, Flux's own
        // controllers too write Ready=Unknown beside Reconciling.
        (
            "FAIL0003: Reconciling, and Ready is neither False nor Unknown",
            reconciling == Some("True") && !matches!(ready, Some("False" | "Unknown")),
        ),
        (
            "FAIL0004: Stalled, and Ready is not False",
            stalled == Some("True") && ready != Some("False"),
        ),
        (
            "FAIL0005: both Reconciling and Stalled",
            reconciling.is_some() && stalled.is_some(),
        ),
        (
            "FAIL0006: a generation that is not there yet",
            observed > generation,
        ),
        (
            "FAIL0007: Ready=True of an older generation",
            observed < generation && is_ready,
        ),
    ];
    rules
        .iter()
        .find_map(|(rule, broken)| broken.then_some(*rule))
}
