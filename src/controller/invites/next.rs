//! Decides the next step of an invite, without I/O.

use std::{collections::BTreeSet, time::Duration};

use super::status::Outcome;
use crate::{
    api::Reason,
    model::{DesiredInvite, Invite},
    tailnet::{Retry, backoff, jittered},
};

/// The next step for one object.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// This is its invite: the one in its status, or an existing one that matches.
    Keep(&'a Invite),
    /// There is none: create one.
    Create,
    /// The list no longer has its invite. It is not created again: someone withdrew it, or it
    /// expired.
    Gone,
}

/// Decides the next step of an object with the invite `desired` and the recorded invite `ours`,
/// from a complete list of the device's invites. `others` are the invites that other objects have
/// recorded.
///
/// An invite has no natural key, and a lost response must not create a second one. So an object
/// without an invite adopts an open one that matches, regardless of who created it, unless another
/// object has it in its status: as many objects, as many invites. It does not matter which of
/// several equal invites belongs to which object.
pub(super) fn next<'a>(
    desired: &DesiredInvite,
    ours: Option<&str>,
    others: &BTreeSet<String>,
    listed: &'a [Invite],
) -> Step<'a> {
    if let Some(ours) = ours {
        let still_there = listed.iter().find(|invite| invite.id == ours);
        return still_there.map_or(Step::Gone, Step::Keep);
    }
    let mut free = listed
        .iter()
        .filter(|invite| !invite.accepted && !others.contains(&invite.id));
    free.find(|invite| desired.is_met_by(invite))
        .map_or(Step::Create, Step::Keep)
}

/// How often an object is reconciled if that costs no request.
const FREE_READ: Duration = Duration::from_secs(5);

/// When to reconcile again; `None`: not before an edit. `interval` is that of slow reads.
pub(super) fn pause(
    outcome: &Outcome,
    interval: Duration,
    attempts: u32,
    rng: &mut fastrand::Rng,
) -> Option<Duration> {
    let slowly = jittered(interval, rng);
    match outcome {
        Outcome::Invalid(_) => None,
        Outcome::Unconnected(_) | Outcome::Unbound { .. } | Outcome::Uncertain { .. } => {
            Some(jittered(FREE_READ, rng))
        }
        Outcome::Failed { failure, .. } => Some(match (failure.reason, failure.retry) {
            // Time alone does not fix these.
            (Reason::Forbidden | Reason::PlanRefused, _) | (_, Retry::Never) => slowly,
            (_, Retry::Later) => backoff(attempts, rng),
            // The server's pause is the minimum: repeated failures may wait longer.
            (_, Retry::After(pause)) => pause.max(backoff(attempts, rng)),
        }),
        // Another read would tell nothing new.
        Outcome::Out(out) if out.is_settled() => None,
        Outcome::Out(out) if out.secret.is_err() => Some(backoff(attempts, rng)),
        Outcome::Gone { .. } | Outcome::Out(_) => Some(slowly),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(id: &str, email: Option<&str>) -> Invite {
        Invite {
            id: id.to_owned(),
            made_as: DesiredInvite {
                email: email.map(str::to_owned),
                ..DesiredInvite::default()
            },
            accepted: false,
            accepted_by: None,
            url: "https://login.tailscale.com/admin/invite/code".into(),
        }
    }

    /// `keep 2`, `create` or `gone`, for an object that invites a@example.com.
    fn step(ours: Option<&str>, others: &[&str], listed: &[Invite]) -> String {
        let desired = invite("", Some("a@example.com")).made_as;
        let others = others.iter().map(|id| (*id).to_owned()).collect();
        match next(&desired, ours, &others, listed) {
            Step::Keep(invite) => format!("keep {}", invite.id),
            Step::Create => "create".to_owned(),
            Step::Gone => "gone".to_owned(),
        }
    }

    #[test]
    fn invite_is_created_only_if_no_open_one_matches() {
        assert_eq!(step(None, &[], &[]), "create");
        let others = |change: fn(&mut Invite)| {
            let mut other = invite("1", Some("a@example.com"));
            change(&mut other);
            other
        };
        let unlike = [
            others(|it| it.made_as.email = None),
            others(|it| it.made_as.email = Some("b@example.com".into())),
            others(|it| it.made_as.multi_use = true),
            others(|it| it.made_as.allow_exit_node = true),
            others(|it| it.accepted = true),
        ];
        assert_eq!(step(None, &[], &unlike), "create");
        let alike = invite("2", Some("A@Example.com"));
        let listed = [unlike.as_slice(), &[alike]].concat();
        assert_eq!(step(None, &[], &listed), "keep 2");
    }

    #[test]
    fn invite_of_another_object_is_not_used() {
        let listed = [
            invite("1", Some("a@example.com")),
            invite("2", Some("a@example.com")),
        ];
        assert_eq!(step(None, &["1"], &listed), "keep 2");
        assert_eq!(step(None, &["1", "2"], &listed), "create");
    }

    #[test]
    fn an_object_keeps_its_invite_and_never_gets_a_second_one() {
        let mut ours = invite("1", Some("a@example.com"));
        ours.accepted = true;
        let other = invite("2", Some("a@example.com"));
        assert_eq!(step(Some("1"), &[], &[other.clone(), ours]), "keep 1");
        assert_eq!(step(Some("1"), &[], &[other]), "gone");
        assert_eq!(step(Some("1"), &[], &[]), "gone");
    }
}
