//! The status of an invite, as a pure function of the old status, an outcome and the time.

use jiff::Timestamp;

use super::secret::SecretError;
use crate::{
    api::{Reason, TailscaleDeviceInviteStatus, conditions::ACCEPTED},
    controller::status::{Conditions, ReadyState, failed, unbound},
    model::{Invite, NodeId},
    plan::Binding,
    tailnet::{Doubt, Failure},
};

/// The outcome of one reconcile.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The spec cannot be parsed.
    Invalid(Vec<String>),
    /// The tailnet cannot be reached at present.
    Unconnected(Failure),
    /// Not exactly one device matches.
    Unbound { named: String, binding: Binding },
    /// One device matches, but it is not certain yet that it is the right one, or still there.
    Uncertain {
        named: String,
        node: NodeId,
        doubt: Doubt,
    },
    /// The API refused or failed.
    Failed { node: NodeId, failure: Failure },
    /// The list no longer has the object's invite.
    Gone { node: NodeId, invite: String },
    /// The invite exists.
    Out(Out),
}

impl Outcome {
    /// Whether a request failed: each such reconcile costs one, so the next comes later.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::Out(out) => out.secret.is_err(),
            _ => false,
        }
    }
}

/// An invite that exists. Without its URL, which must not come near a status.
#[derive(Debug)]
pub(super) struct Out {
    pub node: NodeId,
    pub invite: String,
    pub email: Option<String>,
    pub multi_use: bool,
    pub accepted: bool,
    pub accepted_by: Option<String>,
    pub secret_name: String,
    /// Why the URL is not in the Secret.
    pub secret: Result<(), SecretError>,
}

impl Out {
    pub fn new(node: NodeId, invite: &Invite, name: &str, secret: Result<(), SecretError>) -> Self {
        Self {
            node,
            invite: invite.id.clone(),
            email: invite.made_as.email.clone(),
            multi_use: invite.made_as.multi_use,
            accepted: invite.accepted,
            accepted_by: invite.accepted_by.clone(),
            secret_name: name.to_owned(),
            secret,
        }
    }

    /// Whether the invite can no longer change.
    pub fn is_settled(&self) -> bool {
        self.accepted && !self.multi_use
    }
}

/// Recorded before the invite is created: this must survive a crash.
pub(super) fn intent(
    old: &TailscaleDeviceInviteStatus,
    node: &NodeId,
    object: Subject,
) -> TailscaleDeviceInviteStatus {
    let making = format!("The controller is creating the invite to {node}.");
    let kept = TailscaleDeviceInviteStatus {
        node_id: Some(node.to_string()),
        ..old.clone()
    };
    finish(
        kept,
        old,
        &ReadyState::working(Reason::Progressing, making),
        object,
    )
}

/// The object of a status.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub tailnet: &'a str,
    pub generation: i64,
    pub now: Timestamp,
}

/// The status after a reconcile. Equal to `old` if nothing has changed, so that nothing is written.
pub(super) fn of_invite(
    old: &TailscaleDeviceInviteStatus,
    outcome: &Outcome,
    object: Subject,
) -> TailscaleDeviceInviteStatus {
    let mut kept = old.clone();
    let ready = match outcome {
        Outcome::Invalid(errors) => ReadyState::stalled(Reason::Invalid, errors.join("; ")),
        Outcome::Unconnected(failure) => failed(failure),
        Outcome::Unbound { named, binding } => unbound(named, binding),
        Outcome::Uncertain { named, node, doubt } => uncertain(named, node, *doubt),
        Outcome::Failed { node, failure } => {
            kept.node_id = Some(node.to_string());
            failed(failure)
        }
        Outcome::Gone { node, invite } => gone(old, node, invite),
        Outcome::Out(out) => {
            kept.node_id = Some(out.node.to_string());
            kept.invite_id = Some(out.invite.clone());
            kept.accepted = Some(out.accepted);
            kept.accepted_by.clone_from(&out.accepted_by);
            // Nobody checks whether the Secret of a used invite exists, so its name is not claimed
            // anew.
            if out.secret.is_ok() && !out.is_settled() {
                kept.secret_name = Some(out.secret_name.clone());
            }
            is_out(out)
        }
    };
    finish(kept, old, &ready, object)
}

fn uncertain(named: &str, node: &NodeId, doubt: Doubt) -> ReadyState {
    let message = match doubt {
        Doubt::OneList => format!(
            "{node} has the {named}. The controller creates the invite once a second list of devices \
             shows no other device of that name, as one list may be incomplete."
        ),
        Doubt::NotListed => format!(
            "{node} has the {named}, but the last list of devices lacks it. The controller creates the \
             invite once a list has the device again."
        ),
    };
    ReadyState::working(Reason::Progressing, message)
}

fn gone(old: &TailscaleDeviceInviteStatus, node: &NodeId, invite: &str) -> ReadyState {
    if old.accepted == Some(true) {
        let message =
            format!("The invite {invite} to {node} was accepted, and is no longer listed.");
        return ReadyState::done(Reason::Accepted, message);
    }
    ReadyState::stalled(
        Reason::InviteGone,
        format!(
            "The device's invites no longer include the invite {invite} to {node}: it was withdrawn or \
             has expired. The controller does not create another one. Delete this object, and create \
             it again if you still want the invite."
        ),
    )
}

fn is_out(out: &Out) -> ReadyState {
    let to = out.email.as_deref().unwrap_or("anyone who has the URL");
    let title = format!("The invite {} to {} for {to}", out.invite, out.node);
    match (&out.secret, out.accepted) {
        (Err(error), _) => ReadyState::retrying(
            Reason::SecretNotWritten,
            format!("{title} exists, but its URL is not in a Secret: {error}"),
        ),
        (Ok(()), true) => {
            let by = out.accepted_by.as_deref().unwrap_or("someone");
            ReadyState::done(Reason::Accepted, format!("{title} was accepted by {by}."))
        }
        (Ok(()), false) => ReadyState::done(
            Reason::Invited,
            format!("{title} exists. Nobody has accepted it yet."),
        ),
    }
}

fn finish(
    kept: TailscaleDeviceInviteStatus,
    old: &TailscaleDeviceInviteStatus,
    ready: &ReadyState,
    object: Subject,
) -> TailscaleDeviceInviteStatus {
    let mut conditions = Conditions::new(&old.conditions, object.generation, object.now);
    conditions.set_ready(ready);
    match (kept.accepted, kept.accepted_by.as_deref()) {
        (Some(true), by) => {
            let message = format!("Accepted by {}.", by.unwrap_or("someone"));
            conditions.set(ACCEPTED, "True", Reason::Accepted, &message);
        }
        (Some(false), _) => {
            let message = "Nobody has accepted the invite yet.";
            conditions.set(ACCEPTED, "False", Reason::Invited, message);
        }
        // No list has shown the invite yet.
        (None, _) => {}
    }
    TailscaleDeviceInviteStatus {
        observed_generation: Some(object.generation),
        conditions: conditions.finish(),
        tailnet: Some(object.tailnet.to_owned()),
        ..kept
    }
}
