//! The policies in Kubernetes: what people do with them, and what the watch shows.

use super::{CLEAR_TIMEOUT, Event, World, story};
use crate::{
    plan::{
        Approvals, History, Policy, PolicyInput, PolicyKey, PolicyRecord, ReconcileRequest,
        StatusState,
    },
    tailnet::Input,
};
use std::sync::Arc;

/// A policy as Kubernetes stores it.
#[derive(Debug, Clone)]
pub struct Kept {
    pub policy: Policy,
    pub record: PolicyRecord,
    pub request: ReconcileRequest,
    pub approvals: Approvals,
    /// The fault of its spec, if any.
    pub broken: Broken,
    /// The object has the finalizer.
    pub anchored: bool,
    /// The object is being deleted and waits for its finalizer.
    pub deleting: bool,
    /// What its status says of this generation.
    pub history: Option<History>,
}

/// The fault of a spec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Broken {
    #[default]
    Valid,
    /// The spec is readable but invalid.
    Invalid,
    /// A newer release wrote the spec.
    Unreadable,
}

impl World {
    /// Applies or edits a policy.
    pub fn apply(&mut self, mut policy: Policy) {
        self.tell(|| format!("People apply {}.", story::policy(&policy)));
        let key = policy.key.clone();
        let before = self.policies.get(&key);
        let anchored = before.is_some_and(|kept| kept.anchored);
        let request = before.map(|kept| kept.request.clone()).unwrap_or_default();
        let approvals = before
            .map(|kept| kept.approvals.clone())
            .unwrap_or_default();
        let record = if let Some(kept) = self.policies.get(&key) {
            policy.uid.clone_from(&kept.policy.uid);
            policy.created = kept.policy.created;
            policy.generation = kept.policy.generation + 1;
            kept.record.clone()
        } else {
            policy.uid = self.rng.seed().to_string();
            policy.created = self.wall();
            PolicyRecord::default()
        };
        self.policies.insert(
            key.clone(),
            Kept {
                policy,
                record,
                request,
                approvals,
                broken: Broken::Valid,
                anchored,
                deleting: false,
                history: None,
            },
        );
        self.watch_soon(key);
    }

    /// Deletes a policy. It waits for its finalizer if it has something to clear.
    pub fn delete(&mut self, key: &PolicyKey) {
        self.tell(|| format!("People delete {key}."));
        match self.policies.get_mut(key) {
            Some(kept) if kept.anchored => {
                if !kept.deleting {
                    kept.deleting = true;
                    kept.policy.generation += 1;
                }
            }
            _ => self.remove(key),
        }
        self.watch_soon(key.clone());
    }

    /// Makes the spec of a policy invalid or unreadable.
    pub fn break_spec(&mut self, key: &PolicyKey, broken: Broken) {
        if let Some(kept) = self.policies.get_mut(key) {
            kept.broken = broken;
            kept.policy.generation += 1;
            self.tell(|| format!("The spec of {key} becomes {broken:?}."));
            self.watch_soon(key.clone());
        }
    }

    /// Replaces the object by its manifest, which has no finalizer.
    pub fn replace(&mut self, key: &PolicyKey) {
        let kept = self.policies.get_mut(key);
        if let Some(kept) = kept.filter(|kept| !kept.deleting) {
            kept.anchored = false;
            self.tell(|| format!("People replace {key} by its manifest, without a finalizer."));
            self.watch_soon(key.clone());
        }
    }

    pub fn remove(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
        self.last_reports.remove(key);
    }

    /// The watch shows the present state of the tailnet's object.
    pub fn show_tailnet_object(&mut self) {
        self.step(Input::Tailnet(self.tailnet.clone()));
    }

    pub fn watch_soon(&mut self, key: PolicyKey) {
        let delay = self.delay();
        self.after(delay, Event::Watch(key));
    }

    pub fn show_policy(&mut self, key: &PolicyKey) {
        let input = match self.policies.get(key) {
            None => Input::PolicyGone(key.clone()),
            Some(kept) => Input::Policy(Box::new(PolicyInput {
                key: key.clone(),
                uid: kept.policy.uid.clone(),
                generation: kept.policy.generation,
                policy: match kept.broken {
                    Broken::Valid => Ok(Arc::new(kept.policy.clone())),
                    _ => Err(vec!["spec.tags: broken".to_owned()]),
                },
                status_state: StatusState {
                    readable: (kept.broken != Broken::Valid).then(|| Arc::new(kept.policy.clone())),
                    left_alone: kept.broken == Broken::Unreadable,
                    lacks_finalizer: !kept.anchored,
                    history: kept.history,
                },
                record: kept.record.clone(),
                request: kept.request.clone(),
                approvals: kept.approvals.clone(),
                deleting: kept.deleting.then_some(CLEAR_TIMEOUT),
            })),
        };
        self.step(input);
    }

    /// Writes the approval annotation of a policy.
    pub fn approve(&mut self, key: &PolicyKey, annotation: &str) {
        let kept = self.policies.get_mut(key).unwrap();
        kept.approvals = Approvals::parse(Some(annotation));
        self.tell(|| format!("People annotate {key} with {annotation}."));
        self.watch_soon(key.clone());
    }
}
