//! One reconcile of one invite: look up, decide, create, report.
use std::{convert::Infallible, time::Duration};

use jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::info;

use super::{
    context::Context,
    job::{Done, Job},
    next::{self, Step},
    secret,
    status::{self, Out, Outcome, Subject},
};
use crate::{
    api::{Reason, TailscaleDeviceInvite, TailscaleDeviceInviteStatus},
    controller::write::{
        api_server::MAX_WAIT,
        event,
        status_patch::{NotWritten, Part, Target, write_status},
    },
    convert,
    model::{DesiredInvite, Invite, NodeId, TagSet},
    plan::{Binding, DeviceTarget, Identity},
    tailnet::{DeviceLookup, Failure, LookupResult, Retry, backoff},
    tailscale::{Kind, Permit},
};

/// The leadership was lost, or the object is gone: there is nothing more to do here.
struct Interrupted;

/// The pause before a failed status write is retried.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// The interval if that of the tailnet is not known.
const INTERVAL: Duration = Duration::from_mins(10);

fn suspended() -> Failure {
    Failure {
        reason: Reason::Suspended,
        message:
            "The TailscaleTailnet is suspended: the controller does not create the invite. Set its \
                  spec.suspend to false to continue."
                .to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    }
}

/// Reconciles one object.
pub(super) async fn reconcile(context: &Context, job: Job) -> Done {
    let mut look = OpenInvites {
        status: job.object.status.clone().unwrap_or_default(),
        version: job.object.resource_version().unwrap_or_default(),
        interval: INTERVAL,
        context,
        job: &job,
    };
    let outcome = match look.take().await {
        Ok(outcome) => look.conclude(&outcome).await.map(|()| outcome),
        Err(interrupted) => Err(interrupted),
    };
    let (pause, failed) = match &outcome {
        Ok(outcome) => {
            let rng = &mut fastrand::Rng::new();
            let pause = next::pause(outcome, look.interval, job.attempts, rng);
            (pause, outcome.is_failure())
        }
        // The event that interrupted it makes the object due again, if it still exists.
        Err(Interrupted) => (None, false),
    };
    Done {
        status: look.status,
        version: look.version,
        object: job.object,
        pause,
        failed,
    }
}

struct OpenInvites<'a> {
    context: &'a Context,
    job: &'a Job,
    /// As it stands in the cluster.
    status: TailscaleDeviceInviteStatus,
    /// The version of the object that has it.
    version: String,
    interval: Duration,
}

impl OpenInvites<'_> {
    async fn take(&mut self) -> Result<Outcome, Interrupted> {
        let spec = &self.job.object.spec;
        let target = match convert::device_target(&spec.device) {
            Ok(target) => target,
            Err(errors) => return Ok(Outcome::Invalid(errors)),
        };
        let named = target.identity.to_string();
        let finding = match self.find(target).await? {
            Ok(finding) => finding,
            Err(failure) => return Ok(Outcome::Unconnected(failure)),
        };
        self.interval = finding.settings.attributes_interval;
        let Binding::Device(node) = finding.binding.clone() else {
            let binding = finding.binding;
            return Ok(Outcome::Unbound { named, binding });
        };
        // Nobody could take back an invite to another device.
        if let Some(doubt) = finding.doubt.filter(|_| self.status.invite_id.is_none()) {
            return Ok(Outcome::Uncertain { named, node, doubt });
        }
        let failed = |failure: Failure| {
            let node = node.clone();
            Ok(Outcome::Failed { node, failure })
        };
        let listed = match finding.client.device_invites(&node).await {
            Ok(listed) => listed,
            Err(error) => return failed(Failure::from(&error)),
        };
        let desired = DesiredInvite {
            email: spec.email.clone(),
            multi_use: spec.multi_use.unwrap_or_default(),
            allow_exit_node: spec.allow_exit_node.unwrap_or_default(),
        };
        let ours = self.status.invite_id.as_deref();
        let invite = match next::next(&desired, ours, &self.job.others, &listed) {
            Step::Keep(invite) => invite.clone(),
            Step::Gone => {
                let invite = ours.unwrap_or_default().to_owned();
                return Ok(Outcome::Gone { node, invite });
            }
            // A suspended tailnet creates no invite, but an existing one is still read and reported.
            Step::Create if finding.settings.guardrails.suspended() => {
                return Ok(Outcome::Unconnected(suspended()));
            }
            Step::Create => {
                self.intend(&node).await?;
                match self.create(&finding, &node, &desired).await? {
                    Ok(invite) => self.created(&node, invite).await,
                    Err(failure) => return failed(failure),
                }
            }
        };
        Ok(Outcome::Out(self.out(node, &invite).await?))
    }

    /// Looks up the device: that of the status, once there is an invite, as the invite is bound to
    /// it. Before there is an invite, another device may replace one that is proven to have left.
    async fn find(
        &self,
        target: DeviceTarget,
    ) -> Result<Result<LookupResult, Failure>, Interrupted> {
        let bound: Option<NodeId> = self
            .status
            .node_id
            .as_deref()
            .and_then(|node| node.parse().ok());
        let target = match &bound {
            Some(node) if self.status.invite_id.is_some() => DeviceTarget {
                identity: Identity::NodeId(node.clone()),
                // They selected the device; the invite that exists does not depend on them.
                tags: TagSet::new(),
                users: Vec::new(),
            },
            _ => target,
        };
        let (reply, answer) = oneshot::channel();
        let inquiry = DeviceLookup {
            target,
            bound,
            reply,
        };
        let tailnet = self.job.object.spec.tailnet_name();
        if !self.context.lookups.look_up(tailnet, inquiry) {
            return Err(Interrupted);
        }
        answer.await.map_err(|_| Interrupted)
    }

    /// Records the device before the invite is created, so that after a crash the invite is
    /// searched for there.
    async fn intend(&mut self, node: &NodeId) -> Result<(), Interrupted> {
        if self.status.node_id.as_deref() != Some(node.as_str()) {
            let intent = status::intent(&self.status, node, self.subject());
            self.write(intent).await?;
        }
        // After the write, which may have taken long.
        if self.context.leadership.leads(self.job.term) {
            Ok(())
        } else {
            Err(Interrupted)
        }
    }

    /// Creates the invite, unless the object, the connection or the leadership changes before it is
    /// sent: nobody could take a second one back.
    async fn create(
        &self,
        finding: &LookupResult,
        node: &NodeId,
        desired: &DesiredInvite,
    ) -> Result<Result<Invite, Failure>, Interrupted> {
        let (leadership, term) = (self.context.leadership.clone(), self.job.term);
        let permit = Permit::new(move || leadership.leads(term));
        let client = finding.client.permitted(permit.clone());
        let revoke = async {
            tokio::select! { () = self.job.obsolete.cancelled() => {} () = finding.writable.cancelled() => {} }
            permit.revoke();
            // Never ends, so that the response to a request that was sent is still read: it has the id
            // of the invite.
            std::future::pending::<Infallible>().await
        };
        // `biased`: if both are ready, the revocation comes before the request is sent.
        let created = tokio::select! { biased; never = revoke => match never {}, created = client.create_device_invite(node, desired) => created, };
        match created {
            Err(error) if error.kind() == Kind::NotSent && self.is_interrupted() => {
                Err(Interrupted)
            }
            created => Ok(created.map_err(|error| Failure::from(&error))),
        }
    }

    fn is_interrupted(&self) -> bool {
        self.job.obsolete.is_cancelled() || !self.context.leadership.leads(self.job.term)
    }

    async fn created(&self, node: &NodeId, invite: Invite) -> Invite {
        info!(%node, id = invite.id, "created the invite");
        let to = match &invite.made_as.email {
            Some(email) => format!(", sent to {email}"),
            None => String::new(),
        };
        let message = format!("Created the invite {} to {node}{to}.", invite.id);
        self.emit(Reason::Invited, message).await;
        invite
    }

    async fn out(&self, node: NodeId, invite: &Invite) -> Result<Out, Interrupted> {
        // Before the Secret is written: another leader may own the invite by now.
        if !self.context.leadership.leads(self.job.term) {
            return Err(Interrupted);
        }
        let object = &self.job.object;
        let out = Out::new(node, invite, object.secret_name(), Ok(()));
        // The URL of a used invite is worth nothing, so a missing Secret is not written again.
        if out.is_settled() {
            return Ok(out);
        }
        let secret = secret::keep(&self.context.client, object, invite).await;
        Ok(Out { secret, ..out })
    }

    async fn conclude(&mut self, outcome: &Outcome) -> Result<(), Interrupted> {
        // Before the status records it: a crash in between repeats the Event and does not lose it.
        if let Outcome::Out(out) = outcome
            && out.accepted
            && self.status.accepted != Some(true)
        {
            let by = out.accepted_by.as_deref().unwrap_or("someone");
            let note = format!("{by} accepted the invite {} to {}.", out.invite, out.node);
            self.emit(Reason::Accepted, note).await;
        }
        let new = status::of_invite(&self.status, outcome, self.subject());
        self.write(new).await
    }

    fn subject(&self) -> Subject<'_> {
        let object = &self.job.object;
        Subject {
            tailnet: object.spec.tailnet_name(),
            generation: object.metadata.generation.unwrap_or_default(),
            now: Timestamp::now(),
        }
    }

    /// Writes a status if it changed, and keeps trying: the record must not be lost.
    async fn write(&mut self, new: TailscaleDeviceInviteStatus) -> Result<(), Interrupted> {
        if new == self.status {
            return Ok(());
        }
        let (namespace, name) = self.job.key();
        let uid = self.job.object.uid().unwrap_or_default();
        let api: Api<TailscaleDeviceInvite> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let leadership = &self.context.leadership;
        let reported = (&*self.context.metrics, &*self.context.readiness);
        let mut failures = 0;
        loop {
            // In the loop, as the leadership can end between two tries.
            if !leadership.leads(self.job.term) {
                return Err(Interrupted);
            }
            let over = Target {
                namespace: &namespace,
                name: &name,
                uid: &uid,
                at: &self.version,
            };
            match write_status(&api, over, Part::Whole(&new), reported).await {
                Ok(version) => {
                    self.version = version;
                    break;
                }
                Err(NotWritten::Gone) => return Err(Interrupted),
                // Only this process writes a status in this term: another field has changed, and the watch
                // shows that too.
                Err(NotWritten::Outdated) => self.read_version(&api, &name, &uid).await?,
                Err(NotWritten::Failed) => {
                    failures += 1;
                    sleep(backoff(failures, &mut fastrand::Rng::new())).await;
                }
            }
        }
        self.status = new;
        Ok(())
    }

    /// Reads the stored version of the object.
    async fn read_version(
        &mut self,
        api: &Api<TailscaleDeviceInvite>,
        name: &str,
        uid: &str,
    ) -> Result<(), Interrupted> {
        match timeout(MAX_WAIT, api.get_metadata_opt(name)).await {
            Ok(Ok(Some(object))) if object.uid().as_deref() == Some(uid) => {
                self.version = object.resource_version().unwrap_or_default();
                Ok(())
            }
            // The object is gone, or another one has its name.
            Ok(Ok(_)) => Err(Interrupted),
            Ok(Err(_)) | Err(_) => {
                sleep(WRITE_AGAIN).await;
                Ok(())
            }
        }
    }

    async fn emit(&self, reason: Reason, note: String) {
        let event = event::normal(reason.as_str(), "Invite", &note);
        let about = self.job.object.object_ref(&());
        self.context.events.publish(&event, &about).await;
    }
}
