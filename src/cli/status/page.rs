//! The page as data: what is there, and whether action is required.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;

use super::read::Cluster;
use crate::api::{
    DeserializeGuard, TailscaleDevicePolicy, TailscaleTailnet, TailscaleTailnetStatus,
    conditions::{READY, needs_person},
};

/// The number of policies that each reason names.
const NAMED: usize = 5;
/// A lease that was renewed this long ago has no holder that works, also if the clocks of two machines differ.
const LEASE_IS_OLD: SignedDuration = SignedDuration::from_mins(1);
/// The time of the last poll moves every ten minutes. Twice as long means that no controller polls.
const POLL_IS_OLD: SignedDuration = SignedDuration::from_mins(20);

/// One page about a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    /// Whether action is required.
    pub must_act: bool,
    /// What must be done, one sentence each.
    pub problems: Vec<String>,
    pub leader: Option<Leader>,
    /// Why it is unknown who leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_unknown: Option<String>,
    pub versions: Versions,
    pub tailnets: Vec<TailnetView>,
    pub policies: Vec<ReasonView>,
    pub held: Vec<HeldView>,
    /// The policies for which something changed within the last hour, the latest first.
    pub changed: Vec<ChangedView>,
    #[serde(skip)]
    pub now: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Leader {
    pub holder: String,
    pub renewed: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Versions {
    /// Of this program.
    pub program: &'static str,
    /// The images of the controller.
    pub controller: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TailnetView {
    pub name: String,
    pub devices: Option<u32>,
    pub unmanaged_devices: Option<u32>,
    pub unreadable_devices: u32,
    pub policies: Option<u32>,
    pub changed_devices: Option<u32>,
    pub change_limit: Option<u32>,
    pub last_poll: Option<Timestamp>,
    pub ready: bool,
    pub reason: String,
    pub message: String,
}

/// The policies with one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReasonView {
    pub reason: String,
    pub must_act: bool,
    pub policies: usize,
    /// The first of them.
    pub names: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeldView {
    pub policy: String,
    pub changes: u32,
    pub devices: u32,
    pub disruptive_changes: u32,
    /// Shows the plan, asks, and approves it.
    pub command: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedView {
    pub policy: String,
    pub at: Timestamp,
}

impl Page {
    /// The page about a cluster.
    pub fn of(cluster: &Cluster, now: Timestamp) -> Self {
        let mut page = Self {
            must_act: false,
            problems: Vec::new(),
            leader: None,
            leader_unknown: None,
            versions: Versions {
                program: env!("CARGO_PKG_VERSION"),
                controller: cluster.images.clone(),
            },
            tailnets: Vec::new(),
            policies: Vec::new(),
            held: Vec::new(),
            changed: Vec::new(),
            now,
        };
        match &cluster.lease {
            Ok(lease) => page.take_lease(lease.as_ref()),
            Err(error) => page.leader_unknown = Some(error.to_string()),
        }
        for tailnet in &cluster.tailnets {
            page.take_tailnet(tailnet);
        }
        page.take_policies(&cluster.policies);
        page.must_act = !page.problems.is_empty();
        page
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn take_lease(&mut self, lease: Option<&Lease>) {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        // A controller that stops gives the lease back: its holder is empty.
        let Some(holder) = holder.filter(|holder| !holder.is_empty()) else {
            self.problem("No controller leads. Check that one runs.".to_owned());
            return;
        };
        let renewed = spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|it| it.0);
        let is_old = renewed.is_none_or(|at| self.now.duration_since(at) > LEASE_IS_OLD);
        if is_old {
            self.problem(format!(
                "{holder} no longer renews its lease, and no other controller leads. Check that one runs."
            ));
        }
        self.leader = Some(Leader { holder, renewed });
    }

    fn take_tailnet(&mut self, object: &DeserializeGuard<TailscaleTailnet>) {
        let name = object.name_any();
        let (status, interval) = match &object.0 {
            Ok(tailnet) => (
                tailnet.status.clone().unwrap_or_default(),
                tailnet.spec.poll_interval().ok(),
            ),
            Err(unreadable) => (unreadable.status::<TailscaleTailnetStatus>(), None),
        };
        let ready = ready(&status.conditions);
        let (is_ready, reason, message) = described(ready);
        if ready.is_some_and(needs_person) {
            self.problem(format!("The TailscaleTailnet {name}: {message}"));
        }
        let last_poll = status.last_poll_time.as_ref().map(|it| it.0);
        let too_old = interval
            .and_then(|interval: Duration| SignedDuration::try_from(interval * 2).ok())
            .map_or(POLL_IS_OLD, |twice| twice.max(POLL_IS_OLD));
        if last_poll.is_some_and(|at| self.now.duration_since(at) > too_old) {
            self.problem(format!(
                "The devices of the TailscaleTailnet {name} were last read long ago. Check the controller and \
                 the API."
            ));
        }
        self.tailnets.push(TailnetView {
            name,
            devices: status.devices,
            unmanaged_devices: status.unmanaged_devices,
            unreadable_devices: status.unreadable_devices_total.unwrap_or_default(),
            policies: status.policies,
            changed_devices: status.changed_devices,
            change_limit: status.change_limit,
            last_poll,
            ready: is_ready,
            reason,
            message,
        });
    }

    fn take_policies(&mut self, policies: &[DeserializeGuard<TailscaleDevicePolicy>]) {
        let mut by_reason: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for object in policies {
            let key = format!(
                "{}/{}",
                object.meta().namespace.as_deref().unwrap_or_default(),
                object.name_any()
            );
            let Ok(policy) = &object.0 else {
                let unreadable = (true, "Unreadable".to_owned());
                by_reason.entry(unreadable).or_default().push(key);
                continue;
            };
            let status = policy.status.clone().unwrap_or_default();
            let ready = ready(&status.conditions);
            let must_act = ready.is_some_and(needs_person);
            let (_, reason, _) = described(ready);
            by_reason
                .entry((must_act, reason))
                .or_default()
                .push(key.clone());
            if let Some(plan) = &status.held_plan {
                let namespace = policy.namespace().unwrap_or_default();
                self.held.push(HeldView {
                    changes: plan.changes,
                    devices: plan.devices,
                    disruptive_changes: plan.disruptive_changes.unwrap_or_default(),
                    command: format!("kubectl tsdp approve {} -n {namespace}", policy.name_any()),
                    policy: key.clone(),
                });
            }
            self.take_change(key, status.last_change_time.as_ref());
        }
        self.changed.sort_by_key(|it| Reverse(it.at));
        // Those that require action come first.
        for ((must_act, reason), names) in by_reason.into_iter().rev() {
            if must_act {
                let (count, first) = (names.len(), &names[0]);
                let others = if count > 1 { " and others" } else { "" };
                self.problem(format!(
                    "{first}{others}: {reason}. See: kubectl get tsdp -A"
                ));
            }
            self.policies.push(ReasonView {
                reason,
                must_act,
                policies: names.len(),
                names: names.into_iter().take(NAMED).collect(),
            });
        }
    }

    fn take_change(&mut self, policy: String, at: Option<&Time>) {
        let hour = SignedDuration::from_hours(1);
        if let Some(at) = at
            .map(|at| at.0)
            .filter(|at| self.now.duration_since(*at) <= hour)
        {
            self.changed.push(ChangedView { policy, at });
        }
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|it| it.type_ == READY)
}

/// Whether it is ready, why, and the message.
fn described(ready: Option<&Condition>) -> (bool, String, String) {
    match ready {
        Some(ready) => (
            ready.status == "True",
            ready.reason.clone(),
            ready.message.clone(),
        ),
        None => (false, "NotRead".to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::table::Style;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn ago(minutes: i64) -> String {
        (NOW - SignedDuration::from_mins(minutes)).to_string()
    }

    fn condition(status: &str, reason: &str, message: &str) -> Value {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": ago(5)}])
    }

    fn policy(name: &str, status: &Value) -> DeserializeGuard<TailscaleDevicePolicy> {
        let object = json!({
            "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleDevicePolicy",
            "metadata": {"name": name, "namespace": "network"},
            "spec": {"device": {"hostname": name}}, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn tailnet(minutes: i64) -> DeserializeGuard<TailscaleTailnet> {
        let message = "The controller can read the tailnet's devices.";
        let object = json!({
            "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleTailnet",
            "metadata": {"name": "default"}, "spec": {"credentialsSecret": {"name": "tailscale"}},
            "status": {"devices": 61, "unmanagedDevices": 12, "policies": 2, "changedDevices": 1, "changeLimit": 6,
                       "lastPollTime": ago(minutes),
                       "conditions": condition("True", "Connected", message)},
        });
        serde_json::from_value(object).unwrap()
    }

    fn lease(minutes: i64) -> Option<Lease> {
        let renewed = ago(minutes).replace('Z', ".000000Z");
        let lease = json!({"metadata": {"name": "tsdp"},
                           "spec": {"holderIdentity": "tsdp-7d9_ab12", "renewTime": renewed}});
        serde_json::from_value(lease).unwrap()
    }

    fn cluster() -> Cluster {
        let in_sync = json!({"conditions": condition("True", "InSync", "router is in sync."),
                             "lastChangeTime": ago(3)});
        Cluster {
            lease: Ok(lease(0)),
            images: vec!["tsdp:0.2.0".to_owned()],
            tailnets: vec![tailnet(4)],
            policies: vec![policy("router", &in_sync)],
        }
    }

    fn shown(cluster: &Cluster) -> String {
        let text = Page::of(cluster, NOW).text(Style::default());
        text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn if_all_is_well_the_page_says_so() {
        assert!(!Page::of(&cluster(), NOW).must_act);
        insta::assert_snapshot!(shown(&cluster()), @"
        All is well.

        leader: tsdp-7d9_ab12, lease renewed 0s ago
        versions: tsdp VERSION, controller tsdp:0.2.0

        TAILNET  DEVICES  UNMANAGED  UNREADABLE  CHANGED  LIMIT  LAST POLL  REASON
        default  61       12         0           1        6      4m         Connected

        POLICIES  REASON  FIRST
        1         InSync  network/router

        changed within the last hour: network/router 3m ago
        ");
    }

    #[test]
    fn what_must_be_done_comes_first_with_the_command_for_each_held_plan() {
        let held = json!({
            "conditions": condition("False", "LimitHeld", "60 changes of 60 devices are pending approval."),
            "heldPlan": {"hash": "3f2a9c0b7d41e856", "approveOn": "TailscaleTailnet", "changes": 60,
                         "devices": 60, "disruptiveChanges": 2},
        });
        let mut cluster = cluster();
        cluster.policies.push(policy("all", &held));
        let page = Page::of(&cluster, NOW);
        assert!(page.must_act && page.held[0].command == "kubectl tsdp approve all -n network");
        insta::assert_snapshot!(shown(&cluster), @"
        Action required:
        - network/all: LimitHeld. See: kubectl get tsdp -A

        leader: tsdp-7d9_ab12, lease renewed 0s ago
        versions: tsdp VERSION, controller tsdp:0.2.0

        TAILNET  DEVICES  UNMANAGED  UNREADABLE  CHANGED  LIMIT  LAST POLL  REASON
        default  61       12         0           1        6      4m         Connected

        POLICIES  REASON     FIRST
        1         LimitHeld  network/all
        1         InSync     network/router

        network/all holds 60 changes on 60 devices, 2 disruptive:
          kubectl tsdp approve all -n network

        changed within the last hour: network/router 3m ago
        ");
    }

    #[test]
    fn a_controller_that_is_gone_requires_action() {
        let gone = Cluster {
            lease: Ok(lease(3)),
            tailnets: vec![tailnet(180)],
            ..cluster()
        };
        let page = Page::of(&gone, NOW);
        assert_eq!(page.problems.len(), 2, "{:?}", page.problems);
        let none = Cluster {
            lease: Ok(None),
            ..cluster()
        };
        let problems = Page::of(&none, NOW).problems;
        assert_eq!(problems, ["No controller leads. Check that one runs."]);
    }
}
