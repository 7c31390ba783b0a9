//! Reports as status and Events of the objects.

use std::{fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter as EventSource},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{board::Board, finalizer::Finalizers, lease::Leadership, metrics::Metrics, status};
use crate::{
    api::{
        APPROVE, DeserializeGuard, Reason, TailscaleDevicePolicy, TailscaleDevicePolicyStatus,
        TailscaleTailnet, TailscaleTailnetStatus,
    },
    plan::{ApprovedOn, Change, Difference, PolicyKey},
    tailnet::{Announcement, HeldPlan, MissedExpiry, PolicyReport, Reporter, State, TailnetReport},
};

/// The field manager of what the controller writes.
pub(super) const MANAGER: &str = "tsdp";
/// kube's client has no read timeout of its own.
pub(super) const API_SERVER: Duration = Duration::from_secs(5);

/// As whom Events are written.
pub(super) fn event_source() -> EventSource {
    EventSource {
        controller: MANAGER.to_owned(),
        instance: std::env::var("HOSTNAME").ok(),
    }
}

pub(super) type Policies = Board<PolicyKey, TailscaleDevicePolicyStatus>;
pub(super) type Tailnets = Board<String, TailscaleTailnetStatus>;

/// Writes the status of one tailnet's objects, and their Events.
pub(super) struct StatusWriter {
    pub tailnet: String,
    pub client: Client,
    pub events_from: EventSource,
    pub policies: Arc<Policies>,
    pub finalizers: Arc<Finalizers>,
    pub tailnets: Arc<Tailnets>,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
}

impl Reporter for StatusWriter {
    fn may_write(&self) -> bool {
        self.leadership.is_leader()
    }

    async fn policy(&self, key: &PolicyKey, report: &PolicyReport) -> bool {
        let known = self.policies.get(key);
        // Deleted meanwhile, and maybe created again: a newer report follows.
        let Some(known) = known.filter(|known| known.uid == report.uid) else {
            return true;
        };
        let over = report.memory.holdings.is_empty();
        if over && matches!(report.state, State::Leaving(_)) {
            return self.settle_finalizer(key, &known.uid, report).await;
        }
        // It is there as long as the status records managed devices: put before, taken after.
        if !over && !self.settle_finalizer(key, &known.uid, report).await {
            return false;
        }
        let new = status::of_policy(&known.status, report, &self.tailnet, Timestamp::now());
        self.metrics
            .policy_ready(&self.tailnet, key, &new.conditions);
        if new != known.status {
            let api: Api<DeserializeGuard<TailscaleDevicePolicy>> =
                Api::namespaced(self.client.clone(), &key.namespace);
            if !self.write(&api, &key.name, &known.uid, &new).await {
                return false;
            }
            self.policies.wrote(key, &known.uid, new);
        }
        !over || self.settle_finalizer(key, &known.uid, report).await
    }

    async fn tailnet(&self, report: &TailnetReport) -> bool {
        self.metrics.tailnet(&self.tailnet, report);
        let Some(known) = self.tailnets.get(&self.tailnet) else {
            return true;
        };
        let new = status::of_tailnet(&known.status, report, known.generation, Timestamp::now());
        if new == known.status {
            return true;
        }
        let api: Api<DeserializeGuard<TailscaleTailnet>> = Api::all(self.client.clone());
        let kept = self.write(&api, &self.tailnet, &known.uid, &new).await;
        if kept {
            self.tailnets.wrote(&self.tailnet, &known.uid, new);
        }
        kept
    }

    async fn announce(&self, key: &PolicyKey, announcement: &Announcement) {
        let event = match announcement {
            Announcement::Changed(difference) => {
                info!(policy = %key, device = %difference.device, node = %difference.node, change = %difference.change, "changed");
                // Each of its policies says so; it is one change.
                if difference.owner == *key {
                    self.metrics.changed(&self.tailnet, difference);
                }
                changed(difference)
            }
            Announcement::Failed {
                device,
                field,
                failure,
            } => {
                warn!(policy = %key, %device, %field, reason = %failure.reason, "{}", failure.message);
                Event {
                    type_: EventType::Warning,
                    reason: failure.reason.to_string(),
                    note: Some(bounded(format!("{device}: {field}: {}", failure.message))),
                    action: "Change".to_owned(),
                    secondary: None,
                }
            }
            Announcement::Held(plan) => {
                info!(policy = %key, plan = %plan.hash, changes = plan.changes, devices = plan.devices, "held for an approval");
                held(plan)
            }
            Announcement::Refused(forbidden) => {
                warn!(policy = %key, "not allowed: {forbidden}");
                Event {
                    type_: EventType::Warning,
                    reason: Reason::NotAllowed.to_string(),
                    note: Some(bounded(forbidden.to_string())),
                    action: "Refuse".to_owned(),
                    secondary: None,
                }
            }
            Announcement::Approved(plan) => {
                info!(policy = %key, plan = %plan.hash, changes = plan.changes, devices = plan.devices, "approved");
                approved(plan)
            }
            Announcement::Missed(missed) => {
                warn!(policy = %key, at = %missed.at, devices = missed.total, "expireKeyAt is missed: {}", missed.why);
                self::missed(missed)
            }
        };
        if let Some(known) = self.policies.get(key) {
            self.publish(key, &known.uid, &event).await;
        }
    }
}

impl StatusWriter {
    /// Writes an Event about a policy, if that can be done at once.
    pub(super) async fn publish(&self, key: &PolicyKey, uid: &str, event: &Event) {
        let about = ObjectReference {
            api_version: Some(TailscaleDevicePolicy::api_version(&()).into_owned()),
            kind: Some(TailscaleDevicePolicy::kind(&()).into_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        // One that is kept would count up Events of the same reason, and show the first one's note
        // for all of them.
        let recorder = Recorder::new(self.client.clone(), self.events_from.clone());
        match timeout(API_SERVER, recorder.publish(event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(policy = %key, "the Event was not written: {error}"),
            Err(_) => debug!(policy = %key, "the Event was not written in time"),
        }
    }

    /// Guarded, as the answer is the whole object: one whose spec cannot be read has a status too.
    async fn write<K, S>(
        &self,
        api: &Api<DeserializeGuard<K>>,
        name: &str,
        uid: &str,
        status: &S,
    ) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        S: Serialize,
    {
        let written = write_status(api, name, uid, status, &self.leadership, &self.metrics).await;
        written != Written::Not
    }
}

/// What became of a status that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands there.
    Kept,
    /// The object is gone, or another of its name has taken its place.
    Gone,
    /// Not this time.
    Not,
}

/// Writes the status of an object while this process leads; bounded in time.
pub(super) async fn write_status<K, S>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    status: &S,
    leadership: &Leadership,
    metrics: &Metrics,
) -> Written
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    if !leadership.is_leader() {
        return Written::Not;
    }
    let patch = Patch::Apply(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // Refused should another object of the name have taken the place of this one.
        "metadata": {"name": name, "uid": uid},
        "status": status,
    }));
    let params = PatchParams::apply(MANAGER).force();
    let patched = api.patch_status(name, &params, &patch);
    match timeout(API_SERVER, patched).await {
        Ok(Ok(_)) => {
            metrics.status_written();
            Written::Kept
        }
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => {
            Written::Gone
        }
        Ok(Err(error)) => {
            warn!(
                "the status of {} {name} was not written: {error}; trying again",
                K::kind(&())
            );
            Written::Not
        }
        Err(_) => {
            warn!(
                "the status of {} {name} was not written in time; trying again",
                K::kind(&())
            );
            Written::Not
        }
    }
}

fn changed(difference: &Difference) -> Event {
    let reason = match &difference.change {
        Change::Authorized { after: true, .. } => "Authorized",
        Change::Authorized { after: false, .. } => "Deauthorized",
        Change::Tags { .. } => "TagsChanged",
        Change::KeyExpiryDisabled { .. } => "KeyExpiryChanged",
        Change::Attribute { after: Some(_), .. } => "AttributeSet",
        Change::Attribute { after: None, .. } => "AttributeDeleted",
        Change::EnabledRoutes { .. } => "RoutesChanged",
        Change::ExitNode { .. } => "ExitNodeChanged",
        Change::Name { .. } => "NameChanged",
        Change::Ipv4 { .. } => "Ipv4Changed",
        Change::ExpireKey { .. } => "KeyExpired",
        Change::Delete { .. } => "DeviceDeleted",
    };
    Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(bounded(format!(
            "{} ({}): {}",
            difference.device, difference.why, difference.change
        ))),
        action: "Change".to_owned(),
        secondary: None,
    }
}

fn held(plan: &HeldPlan) -> Event {
    let (reason, on) = match plan.on {
        ApprovedOn::Policy => (Reason::AwaitingApproval, "policy"),
        ApprovedOn::Tailnet => (Reason::LimitHeld, "TailscaleTailnet"),
    };
    Event {
        type_: EventType::Normal,
        reason: reason.to_string(),
        note: Some(format!(
            "{}: annotate the {on} with {APPROVE}: plan:{} to approve it.",
            counted(plan),
            plan.hash
        )),
        action: "Hold".to_owned(),
        secondary: None,
    }
}

/// Who wrote the annotation is in the API server's audit log, and nowhere else.
fn approved(plan: &HeldPlan) -> Event {
    Event {
        type_: EventType::Normal,
        reason: "Approved".to_owned(),
        note: Some(format!("plan:{}: {}", plan.hash, counted(plan))),
        action: "Approve".to_owned(),
        secondary: None,
    }
}

/// `fra-laptop and 2 others: expireKeyAt 2026-12-01T18:00:00Z is missed and never done: …`
fn missed(missed: &MissedExpiry) -> Event {
    let named = missed.devices.join(", ");
    let others = match missed.total.saturating_sub(missed.devices.len()) {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        many => format!(" and {many} others"),
    };
    Event {
        type_: EventType::Warning,
        reason: "ExpiryMissed".to_owned(),
        note: Some(bounded(format!(
            "{named}{others}: expireKeyAt {} is missed and never done: {}. A later time is another act.",
            missed.at, missed.why
        ))),
        action: "Expire".to_owned(),
        secondary: None,
    }
}

/// `changes: 12, devices: 3`.
fn counted(plan: &HeldPlan) -> String {
    format!("changes: {}, devices: {}", plan.changes, plan.devices)
}

/// The API server refuses longer notes.
pub(super) fn bounded(mut note: String) -> String {
    const LONGEST: usize = 1000;
    if note.len() > LONGEST {
        let end = (0..=LONGEST)
            .rev()
            .find(|at| note.is_char_boundary(*at))
            .unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
