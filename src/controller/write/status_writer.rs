//! Writes reports as status and Events of the objects.
use std::{fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource,
    runtime::events::{Event, EventType},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    events::EventWriter,
    object_cache::{Known, ObjectCache},
    status_patch::{NotWritten, Part, Target, write_status},
    stored::{self, StoredPolicy, StoredTailnet},
};
use crate::{
    api::{
        APPROVE, DeserializeGuard, Reason, TailscaleDevicePolicy, TailscaleTailnet,
        TailscaleTailnetStatus,
    },
    controller::{
        election::Leadership, serve::metrics::Metrics, status, watch::readiness::Readiness,
    },
    plan::{ApprovedOn, Change, Difference, PolicyKey},
    tailnet::{
        HeldPlan, MissedExpiry, Notification, PolicyReport, Recorded, Reporter, State,
        TailnetReport, Term,
    },
};

/// The field manager of everything that the controller writes.
pub(in crate::controller) const MANAGER: &str = "tsdp";
/// kube's client has no read timeout of its own.
pub(in crate::controller) const API_SERVER: Duration = Duration::from_secs(5);

/// How often a status is derived and written again at once if the object has changed.
const TRIES: u32 = 3;

pub(in crate::controller) type Policies = ObjectCache<PolicyKey, StoredPolicy>;
pub(in crate::controller) type Tailnets = ObjectCache<String, StoredTailnet>;

/// Writes the status of one tailnet's objects, and their Events.
pub(in crate::controller) struct StatusWriter {
    pub tailnet: String,
    pub client: Client,
    pub events: EventWriter,
    pub policies: Arc<Policies>,
    pub tailnets: Arc<Tailnets>,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
}

impl Reporter for StatusWriter {
    fn may_write(&self, term: Term) -> bool {
        self.leadership.leads(term)
    }

    async fn policy(&self, term: Term, key: &PolicyKey, report: &PolicyReport) -> Recorded {
        for _ in 0..TRIES {
            match self.try_policy(term, key, report).await {
                Ok(()) => return Recorded::Yes,
                Err(NotWritten::Gone) => return Recorded::Gone,
                Err(NotWritten::Outdated) if self.read_policy(key).await => {}
                Err(NotWritten::Outdated | NotWritten::Failed) => break,
            }
        }
        Recorded::No
    }

    async fn tailnet(&self, term: Term, report: &TailnetReport) -> bool {
        self.metrics.tailnet(&self.tailnet, report);
        for _ in 0..TRIES {
            match self.try_tailnet(term, report).await {
                Ok(()) | Err(NotWritten::Gone) => return true,
                Err(NotWritten::Outdated) if self.read_tailnet().await => {}
                Err(NotWritten::Outdated | NotWritten::Failed) => break,
            }
        }
        false
    }

    async fn notify(&self, term: Term, key: &PolicyKey, notification: &Notification) {
        let event = match notification {
            Notification::Changed(difference) => {
                info!(policy = %key, device = %difference.device, node = %difference.node, change = %difference.change, "changed");
                // Each of its policies reports it, but it is one change: the metric counts it once.
                if difference.owner == *key {
                    self.metrics.changed(&self.tailnet, difference);
                }
                changed(difference)
            }
            Notification::Failed {
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
            Notification::Held(plan) => {
                info!(policy = %key, plan = %plan.hash, changes = plan.changes, devices = plan.devices, "pending approval");
                held(plan)
            }
            Notification::Flapping { node, label } => {
                let note = status::flapping(node, label);
                warn!(policy = %key, device = %node, "{note}");
                Event {
                    type_: EventType::Warning,
                    reason: Reason::Contested.to_string(),
                    note: Some(bounded(note)),
                    action: "Wait".to_owned(),
                    secondary: None,
                }
            }
            Notification::Refused(forbidden) => {
                warn!(policy = %key, "not allowed: {forbidden}");
                Event {
                    type_: EventType::Warning,
                    reason: Reason::NotAllowed.to_string(),
                    note: Some(bounded(forbidden.to_string())),
                    action: "Refuse".to_owned(),
                    secondary: None,
                }
            }
            Notification::Approved(plan) => {
                info!(policy = %key, plan = %plan.hash, changes = plan.changes, devices = plan.devices, "approved");
                approved(plan)
            }
            Notification::Missed(missed) => {
                warn!(policy = %key, at = %missed.at, devices = missed.total, "expireKeyAt is missed: {}", missed.why);
                self::missed(missed)
            }
        };
        // Another leader reports by itself.
        if self.leadership.leads(term)
            && let Some(known) = self.policies.get(key)
            && known.status.tailnet == self.tailnet
        {
            self.publish(key, &known.uid, &event).await;
        }
    }
}

impl StatusWriter {
    async fn try_policy(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> Result<(), NotWritten> {
        let clears = !report.record.managed.is_empty();
        let is_deleting = matches!(report.state, State::Deleting(_));
        // The policy has the finalizer as long as its status records managed devices: so it is added
        // before the status is written, and removed afterwards. Both change the policy's version.
        if clears || is_deleting {
            self.settle_finalizer(term, key, report).await?;
        }
        if is_deleting && !clears {
            return Ok(());
        }
        let known = self.own(key, report).ok_or(NotWritten::Gone)?;
        let old = &known.status.status;
        let new = status::of_policy(old, report, &self.tailnet, Timestamp::now());
        self.metrics
            .policy_ready(&self.tailnet, key, &new.conditions);
        if new != *old {
            let (api, over) = (self.api(key), known.target(&key.namespace, &key.name));
            let version = self.write(term, &api, over, Part::Whole(&new)).await?;
            let policies = &self.policies;
            policies.wrote(key, &known.uid, version, |stored| stored.status = new);
        }
        if clears {
            return Ok(());
        }
        self.settle_finalizer(term, key, report).await
    }

    async fn try_tailnet(&self, term: Term, report: &TailnetReport) -> Result<(), NotWritten> {
        let known = self.tailnets.get(&self.tailnet).ok_or(NotWritten::Gone)?;
        let old = &known.status.status;
        let mut new = status::of_tailnet(old, report, known.generation, Timestamp::now());
        let readable = known.status.readable;
        if !readable {
            new = TailscaleTailnetStatus {
                conditions: new.conditions,
                observed_generation: new.observed_generation,
                ..old.clone()
            };
        }
        if new == *old {
            return Ok(());
        }
        let api: Api<DeserializeGuard<TailscaleTailnet>> = Api::all(self.client.clone());
        let over = known.target("", &self.tailnet);
        let part = if readable {
            Part::Whole(&new)
        } else {
            Part::Conditions(&new.conditions, known.generation)
        };
        let version = self.write(term, &api, over, part).await?;
        let (tailnets, name) = (&self.tailnets, &self.tailnet);
        tailnets.wrote(name, &known.uid, version, |stored| stored.status = new);
        Ok(())
    }

    /// The policy of a report, if it still exists and belongs to this tailnet. A later object of
    /// its name, or a policy that moved to another tailnet, has a report of its own.
    pub(in crate::controller) fn own(
        &self,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> Option<Known<StoredPolicy>> {
        let known = self.policies.get(key)?;
        let own = known.uid == report.uid && known.status.tailnet == self.tailnet;
        own.then_some(known)
    }

    pub(in crate::controller) fn api(
        &self,
        key: &PolicyKey,
    ) -> Api<DeserializeGuard<TailscaleDevicePolicy>> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Reads a policy that has changed before its watch showed it. Returns `false` if that failed.
    async fn read_policy(&self, key: &PolicyKey) -> bool {
        match timeout(API_SERVER, self.api(key).get_opt(&key.name)).await {
            Ok(Ok(object)) => {
                if let Some(object) = object {
                    let stored = stored::policy(&object, Some(&self.tailnet));
                    self.policies.seen(key, stored);
                }
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn read_tailnet(&self) -> bool {
        let api: Api<DeserializeGuard<TailscaleTailnet>> = Api::all(self.client.clone());
        match timeout(API_SERVER, api.get_opt(&self.tailnet)).await {
            Ok(Ok(object)) => {
                if let Some(object) = object {
                    self.tailnets.seen(&self.tailnet, stored::tailnet(&object));
                }
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Guarded, as the response is the whole object: an object whose spec cannot be parsed has a
    /// status too.
    async fn write<K, S>(
        &self,
        term: Term,
        api: &Api<DeserializeGuard<K>>,
        over: Target<'_>,
        part: Part<'_, S>,
    ) -> Result<String, NotWritten>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        S: Serialize,
    {
        if !self.leadership.leads(term) {
            return Err(NotWritten::Failed);
        }
        write_status(api, over, part, (&self.metrics, &self.readiness)).await
    }

    /// Writes an Event about a policy, if that can be done at once.
    pub(in crate::controller) async fn publish(&self, key: &PolicyKey, uid: &str, event: &Event) {
        let about = ObjectReference {
            api_version: Some(TailscaleDevicePolicy::api_version(&()).into_owned()),
            kind: Some(TailscaleDevicePolicy::kind(&()).into_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.events.publish(event, &about).await;
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
        Change::NotCompared { .. } => "Changed",
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

/// Only the API server's audit log records who set the annotation.
fn approved(plan: &HeldPlan) -> Event {
    Event {
        type_: EventType::Normal,
        reason: "Approved".to_owned(),
        note: Some(format!("plan:{}: {}", plan.hash, counted(plan))),
        action: "Approve".to_owned(),
        secondary: None,
    }
}

/// `fra-laptop and 2 others: expireKeyAt 2026-12-01T18:00:00Z is missed: …`
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
            "{named}{others}: expireKeyAt {} is missed: {}. Write a later time to expire the key.",
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
pub(in crate::controller) fn bounded(mut note: String) -> String {
    const MAX_BYTES: usize = 1000;
    if note.len() > MAX_BYTES {
        let end = (0..=MAX_BYTES)
            .rev()
            .find(|at| note.is_char_boundary(*at))
            .unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
