//! Reads `terraform show -json`, of a state or of a saved plan.

use serde::Deserialize;
use serde_json::Value;

/// The resources of a state or a plan.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// What the configuration declares: of a plan, what is to be.
    pub declared: Vec<Resource>,
    /// What Terraform manages now.
    pub managed: Vec<Resource>,
    /// What was read of the tailnet.
    pub data: Vec<Resource>,
}

/// A resource or a data source.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Resource {
    /// With the keys of its instances.
    pub address: String,
    mode: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub values: Value,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ShowError {
    #[error("cannot read {0}: {1}")]
    Read(String, #[source] std::io::Error),
    #[error(
        "{0} is not JSON of Terraform ({1}): expected the output of terraform show -json, for a state or a saved plan"
    )]
    Json(String, #[source] serde_json::Error),
    #[error(
        "{0} is a raw state. Write what Terraform shows of it: terraform show -json > state.json"
    )]
    RawState(String),
    #[error("{0} is a plan that failed. Make a plan without errors first")]
    FailedPlan(String),
    #[error(
        "{0} has no resource that sets a device: found none of tailscale_device_tags, tailscale_device_key, \
         tailscale_device_authorization and tailscale_device_subnet_routes"
    )]
    NoDevice(String),
}

#[derive(Deserialize)]
struct File {
    values: Option<Values>,
    planned_values: Option<Values>,
    prior_state: Option<State>,
    #[serde(default)]
    errored: bool,
    /// Only a raw state has it.
    lineage: Option<Value>,
}

#[derive(Deserialize)]
struct State {
    values: Option<Values>,
}

#[derive(Deserialize)]
struct Values {
    #[serde(default)]
    root_module: Module,
}

#[derive(Default, Deserialize)]
struct Module {
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    child_modules: Vec<Module>,
}

impl Module {
    fn collect(self, found: &mut Vec<Resource>) {
        found.extend(self.resources);
        for module in self.child_modules {
            module.collect(found);
        }
    }
}

fn resources(values: Option<Values>) -> (Vec<Resource>, Vec<Resource>) {
    let mut found = Vec::new();
    if let Some(values) = values {
        values.root_module.collect(&mut found);
    }
    // Terraform sorts them, but no documentation promises it.
    found.sort_by(|a, b| a.address.cmp(&b.address));
    found.into_iter().partition(|one| one.mode == "managed")
}

/// Parses what Terraform shows. `name` is that of the file, for errors.
pub(super) fn parse(name: &str, text: &str) -> Result<Shown, ShowError> {
    // PowerShell can write a byte order mark when it redirects the output into a file.
    let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| ShowError::Json(name.to_owned(), error))?;
    // A raw state has other keys, and Terraform promises no format for it.
    if file.lineage.is_some() {
        return Err(ShowError::RawState(name.to_owned()));
    }
    if file.errored {
        return Err(ShowError::FailedPlan(name.to_owned()));
    }
    // Of a state, everything that is declared is managed too.
    if file.planned_values.is_none() {
        let (managed, data) = resources(file.values);
        return Ok(Shown {
            declared: managed.clone(),
            managed,
            data,
        });
    }
    let (declared, planned_data) = resources(file.planned_values);
    let (managed, mut data) = resources(file.prior_state.and_then(|state| state.values));
    // Data sources that are read only at apply are in the plan itself.
    data.extend(planned_data);
    Ok(Shown {
        declared,
        managed,
        data,
    })
}
