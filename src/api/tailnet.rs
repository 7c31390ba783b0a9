//! `TailscaleTailnet`: a connection to a tailnet.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use std::{num::NonZeroU32, time::Duration};

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AllowedPolicies, GuardedDevices, duration, rules};
use crate::model::{ChangeLimit, Refused};

/// How to connect to a tailnet: the API's address, the credential, the intervals, and the
/// guardrails.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "tailnet.dev",
    version = "v1alpha1",
    kind = "TailscaleTailnet",
    plural = "tailscaletailnets",
    shortname = "tstn",
    category = "tailscale",
    doc = "A connection to a tailnet: the API's address, the credential, the intervals, and the guardrails.",
    status = "TailscaleTailnetStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Devices", "type": "integer", "jsonPath": ".status.devices"}"#,
    printcolumn = r#"{"name": "Policies", "type": "integer", "jsonPath": ".status.policies"}"#,
    printcolumn = r#"{"name": "Not Ready", "type": "integer", "jsonPath": ".status.notReadyPolicies"}"#,
    printcolumn = r#"{"name": "Held", "type": "integer", "jsonPath": ".status.heldPolicies"}"#,
    printcolumn = r#"{"name": "Changed", "type": "integer", "jsonPath": ".status.changedDevices"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    // Columns of priority 1 appear only with `-o wide`.
    printcolumn = r#"{"name": "Tailnet", "type": "string", "jsonPath": ".status.tailnet", "priority": 1}"#,
    printcolumn = r#"{"name": "Limit", "type": "integer", "jsonPath": ".status.changeLimit", "priority": 1}"#,
    printcolumn = r#"{"name": "Last Poll", "type": "date", "jsonPath": ".status.lastPollTime", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TailscaleTailnetSpec {
    /// The tailnet's ID in the API, or "-" for the tailnet of the credential. Absent: "-".
    ///
    /// Example: T1234CNTRL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tailnet")]
    pub tailnet: Option<String>,

    /// The address of the Tailscale API, without the path /api/v2. http:// is for simulators only:
    /// it sends the credential in clear text. Absent: https://api.tailscale.com
    ///
    /// Example: http://127.0.0.1:8080
    #[serde(default, rename = "apiURL", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::api_url")]
    pub api_url: Option<String>,

    /// The Secret with the credential, always in the controller's own namespace. Its keys: api_key
    /// (an API access token); or client_id and client_secret (an OAuth client); or client_id and
    /// audience (workload identity: the controller exchanges tokens of its service account). Add
    /// webhook_secret to let webhooks trigger a poll. The controller reads a changed Secret without
    /// a restart.
    ///
    /// Example: {name: tailscale}
    pub credentials_secret: SecretReference,

    /// How often the controller polls the list of devices: one request, regardless of the number of
    /// policies. Hours, minutes and seconds; at least 1s. Absent: 1m.
    ///
    /// Example: 30s
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::interval")]
    pub poll_interval: Option<String>,

    /// How often the controller reads posture attributes: one request for each device for which a
    /// policy declares some. Hours, minutes and seconds; at least 1s. Absent: 10m.
    ///
    /// Example: 1h30m
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::interval")]
    pub attributes_interval: Option<String>,

    /// The maximum rate of requests to this tailnet. Absent: 5 per second, with a burst of 20.
    ///
    /// Example: {perSecond: 5, burst: 20}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_budget: Option<RequestBudget>,

    /// How many devices the controller may change within an hour: a number, or a percentage of the
    /// tailnet's own devices (at least 5). The controller holds the policies that would exceed the
    /// limit, those that would change the most devices first, until the hour has passed, the limit
    /// is raised, or the plan is approved with the annotation tailnet.dev/approve on this object.
    /// "100%" means no limit. Absent: 10%
    ///
    /// Example: 10%
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::max_changed_devices")]
    pub max_changed_devices: Option<IntOrString>,

    /// The policies that are allowed, and what they may change: a policy must match one of these
    /// rules. The controller sends nothing for a policy that matches none, and the policy's status
    /// shows the rule that would allow it. "[{}]" allows every policy of every namespace: anyone
    /// who can write a policy then controls the whole tailnet. An empty list allows none. Absent:
    /// every policy in the controller's own namespace, and no other.
    ///
    /// Example: [{namespaces: {names: [network]}, fields: [tags, enabledRoutes]}]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_policies")]
    // An Option: an absent list allows the controller's own namespace, an empty one allows no policy.
    pub allowed_policies: Option<Vec<AllowedPolicies>>,

    /// Devices that no policy may change: those that match one of these. The controller holds the
    /// changes that a policy declares for them and reports them in the policy's status. Absent:
    /// none.
    ///
    /// Example: [{tags: ["tag:never-touch"]}]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::protected_devices")]
    pub protected_devices: Option<Vec<GuardedDevices>>,

    /// true: the controller sends nothing for any policy of this tailnet until you set this to
    /// false or remove it. It still reads the devices, and policies can still be deleted. Absent:
    /// false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// A reference to a Secret in the controller's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// The name of the Secret.
    ///
    /// Example: tailscale
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The maximum rate of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestBudget {
    /// Requests per second over time, 1 to 1000. Absent: 5.
    ///
    /// Example: 5
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub per_second: Option<NonZeroU32>,

    /// Requests that may be sent at once after a pause, 1 to 10000. Absent: 20.
    ///
    /// Example: 20
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub burst: Option<NonZeroU32>,
}

/// The observed state of the tailnet. The controller writes it only when it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TailscaleTailnetStatus {
    /// The generation of the spec that this status describes; -1 before the first poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: whether the controller can read the tailnet's devices. Reconciling is True while the
    /// controller retries; Stalled is True if only an edit helps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The tailnet in use: the one that spec names, or the domain of its devices' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet: Option<String>,

    /// How many devices the tailnet has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Absent and not 0 until the first list: unknown is not empty.
    pub devices: Option<u32>,

    /// How many of them no policy targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmanaged_devices: Option<u32>,

    /// Devices that the API reports in a form that cannot be read completely, at most 20. What
    /// depends on the unreadable fields waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub unreadable_devices: Vec<UnreadableDevice>,

    /// How many devices cannot be read completely. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_devices_total: Option<u32>,

    /// How many policies refer to the tailnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<u32>,

    /// How many of these policies are not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_policies: Option<u32>,

    /// How many of these policies have changes that the controller holds, whatever the reason: a pending
    /// approval, the change limit, a disruption, another identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_policies: Option<u32>,

    /// How many devices the controller changed within the last hour. A decrease appears within five
    /// minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_devices: Option<u32>,

    /// How many devices the controller may change within an hour: what maxChangedDevices allows with
    /// the present number of devices. Absent: no limit, or the devices are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_limit: Option<u32>,

    /// When the controller last read the complete list of devices. While nothing else in the status
    /// changes, this moves at most every ten minutes; a time that is much older means that no
    /// controller works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_poll_time: Option<Time>,

    /// The OAuth scopes that policies need and the credential lacks. The API reports none for an
    /// API key. Absent: none is known to be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub missing_scopes: Vec<String>,

    /// The interval in use for reading posture attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes_interval: Option<String>,

    /// The policies that maxChangedDevices holds now, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub held: Vec<HeldPolicy>,

    /// The exact number of policies that maxChangedDevices holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_total: Option<u32>,

    /// How many devices the controller changed, for each namespace in steps of five minutes.
    /// Entries older than an hour no longer count. This record makes the limit survive a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub recent_changes: Vec<RecentChanges>,

    /// The devices that the controller is about to change, each as the namespace of the policy and
    /// the nodeId. The controller writes them before the first request: after a crash they count as
    /// changed.
    ///
    /// Example: network/nkT3CNTRL
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub reserved_devices: Vec<String>,

    /// How many devices policies have deleted within a day, in steps of five minutes. The
    /// controller writes this before each deletion, so that maxPerDay also applies to a policy that
    /// is deleted and created again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40), extend("x-kubernetes-list-type" = "atomic"))]
    pub recent_deletions: Vec<RecentDeletions>,

    /// Errors in the annotation tailnet.dev/approve: entries that cannot be parsed, and entries
    /// that match nothing that is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub approval_errors: Vec<String>,
}

/// Devices that a policy deleted within five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentDeletions {
    /// The namespace and name of the policy. Absent: several policies.
    ///
    /// Example: network/forgotten-runners
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,

    /// The uid of the policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,

    /// The start of the five minutes.
    pub since: Time,

    /// The number of devices.
    pub devices: u32,
}

/// A device that cannot be read completely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadableDevice {
    /// The nodeId; if that cannot be read, the place in the list and the name.
    ///
    /// Example: n292kg92CNTRL
    pub device: String,

    /// The unreadable fields, as the API names them.
    pub fields: Vec<String>,
}

/// A policy that maxChangedDevices holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldPolicy {
    /// The policy's namespace and name.
    ///
    /// Example: network/routers
    pub policy: String,

    /// How many devices the policy would change.
    pub devices: u32,

    /// The hash that approves the plan: set the annotation tailnet.dev/approve on this object to
    /// "plan:" and this hash. Absent: the controller is still computing the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Devices that the controller changed within five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentChanges {
    /// The start of the five minutes.
    pub since: Time,

    /// The number of devices.
    pub devices: u32,

    /// The namespace whose policies changed them. Absent: not recorded; they count only for the
    /// tailnet.
    ///
    /// Example: network
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl TailscaleTailnetSpec {
    /// The default address of the API.
    pub const DEFAULT_API_URL: &str = "https://api.tailscale.com";

    /// The tailnet in the path of a request.
    #[must_use]
    pub fn tailnet(&self) -> &str {
        // `-` is the API's name for the tailnet of the credential.
        self.tailnet.as_deref().unwrap_or("-")
    }

    /// The address of the API, without the path.
    #[must_use]
    pub fn api_url(&self) -> &str {
        self.api_url.as_deref().unwrap_or(Self::DEFAULT_API_URL)
    }

    /// How often the controller polls the list of devices: at least one second.
    pub fn poll_interval(&self) -> Result<Duration, Refused> {
        interval(self.poll_interval.as_deref().unwrap_or("1m"))
    }

    /// How often the controller reads posture attributes: at least one second.
    pub fn attributes_interval(&self) -> Result<Duration, Refused> {
        interval(self.attributes_interval.as_deref().unwrap_or("10m"))
    }

    /// How many devices the controller may change within an hour.
    pub fn max_changed_devices(&self) -> Result<ChangeLimit, Refused> {
        match &self.max_changed_devices {
            None => Ok(ChangeLimit::default()),
            // Through the text form, so that both have the same bounds and the same message.
            Some(IntOrString::Int(number)) => number.to_string().parse(),
            Some(IntOrString::String(text)) => text.parse(),
        }
    }

    /// Whether a rule of `allowedPolicies` matches namespaces by their labels.
    #[must_use]
    pub fn goes_by_labels(&self) -> bool {
        let rules = self.allowed_policies.iter().flatten();
        let mut namespaces = rules.filter_map(|rule| rule.namespaces.as_ref());
        namespaces.any(|namespaces| namespaces.match_labels.is_some())
    }

    /// Requests per second over time.
    #[must_use]
    pub fn requests_per_second(&self) -> NonZeroU32 {
        // A constant: were it zero, this would not compile.
        // The API publishes no rate limit, so the default is low.
        const DEFAULT: NonZeroU32 = NonZeroU32::new(5).unwrap();
        self.request_budget
            .and_then(|budget| budget.per_second)
            .unwrap_or(DEFAULT)
    }

    /// Requests that may be sent at once after a pause.
    #[must_use]
    pub fn request_burst(&self) -> NonZeroU32 {
        // A constant: were it zero, this would not compile.
        const DEFAULT: NonZeroU32 = NonZeroU32::new(20).unwrap();
        self.request_budget
            .and_then(|budget| budget.burst)
            .unwrap_or(DEFAULT)
    }
}

/// An interval, at least one second long.
fn interval(text: &str) -> Result<Duration, Refused> {
    let interval = duration::parse(text)?;
    if interval < Duration::from_secs(1) {
        return Err(Refused(format!("'{text}' is too short: write at least 1s")));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_spec_has_the_documented_defaults() {
        let spec = TailscaleTailnetSpec::default();
        assert_eq!(spec.tailnet(), "-");
        assert_eq!(spec.api_url(), "https://api.tailscale.com");
        assert_eq!(spec.poll_interval(), Ok(Duration::from_mins(1)));
        assert_eq!(spec.attributes_interval(), Ok(Duration::from_mins(10)));
        assert_eq!(spec.requests_per_second().get(), 5);
        assert_eq!(spec.request_burst().get(), 20);
        assert_eq!(spec.max_changed_devices(), Ok(ChangeLimit::Percent(10)));
    }

    #[test]
    fn an_interval_below_one_second_is_refused() {
        let spec = TailscaleTailnetSpec {
            poll_interval: Some("0s".to_owned()),
            ..TailscaleTailnetSpec::default()
        };
        assert!(spec.poll_interval().is_err());
    }
}
