//! The API server of two processes: objects with resource versions, and a lease.

use std::sync::Arc;
use std::{collections::BTreeMap, time::Duration};

use super::super::{Broken, CLEAR_TIMEOUT, Kept, recorded, settings};
use crate::{
    plan::{
        Approvals, Policy, PolicyInput, PolicyKey, PolicyRecord, ReconcileRequest, StatusState,
    },
    tailnet::{PolicyReport, Settings, TailnetDeclared, TailnetReport},
};

/// A stored policy.
#[derive(Debug, Clone)]
pub struct Object {
    pub policy: Policy,
    /// The record in its status.
    pub record: PolicyRecord,
    /// The report behind its status.
    pub report: Option<Box<PolicyReport>>,
    pub approvals: Approvals,
    /// The object has the finalizer.
    pub anchored: bool,
    /// The object is being deleted and waits for its finalizer.
    pub deleting: bool,
    pub version: u64,
}

/// The tailnet's object.
#[derive(Debug, Clone)]
pub struct TailnetObject {
    pub declared: TailnetDeclared,
    pub settings: Settings,
    pub version: u64,
}

/// Why a status write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The object is gone, or another one has its name.
    Gone,
    /// The object changed since the version behind the status.
    Outdated,
}

/// The holder of the lease and its last renewal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lease {
    pub holder: Option<u64>,
    pub renewed: Duration,
}

#[derive(Debug, Clone)]
pub struct Store {
    pub policies: BTreeMap<PolicyKey, Object>,
    pub tailnet: TailnetObject,
    pub lease: Lease,
    version: u64,
}

impl Object {
    /// The policy as a watch shows it.
    pub fn declared(&self) -> PolicyInput {
        PolicyInput {
            key: self.policy.key.clone(),
            uid: self.policy.uid.clone(),
            generation: self.policy.generation,
            policy: Ok(Arc::new(self.policy.clone())),
            status_state: StatusState {
                readable: None,
                left_alone: false,
                lacks_finalizer: !self.anchored,
                history: None,
            },
            record: self.record.clone(),
            request: ReconcileRequest::default(),
            approvals: self.approvals.clone(),
            deleting: self.deleting.then_some(CLEAR_TIMEOUT),
        }
    }

    /// The object as the store of a single process has it.
    pub fn kept(&self) -> Kept {
        Kept {
            policy: self.policy.clone(),
            record: self.record.clone(),
            request: ReconcileRequest::default(),
            approvals: self.approvals.clone(),
            broken: Broken::Valid,
            anchored: self.anchored,
            deleting: self.deleting,
            history: None,
        }
    }
}

impl Store {
    pub fn new() -> Self {
        Self {
            policies: BTreeMap::new(),
            tailnet: TailnetObject {
                declared: TailnetDeclared::default(),
                settings: settings(),
                version: 0,
            },
            lease: Lease::default(),
            version: 0,
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Applies or edits a policy. An edit of an object that is being deleted changes nothing.
    pub fn apply(&mut self, mut policy: Policy) {
        let version = self.next_version();
        let key = policy.key.clone();
        let Some(object) = self.policies.get_mut(&key) else {
            policy.uid = format!("uid-{version}");
            let object = Object {
                policy,
                record: PolicyRecord::default(),
                report: None,
                approvals: Approvals::default(),
                anchored: false,
                deleting: false,
                version,
            };
            self.policies.insert(key, object);
            return;
        };
        if !object.deleting {
            policy.uid.clone_from(&object.policy.uid);
            policy.created = object.policy.created;
            policy.generation = object.policy.generation + 1;
            object.policy = policy;
            object.version = version;
        }
    }

    /// Deletes a policy. It waits for its finalizer if it has something to clear.
    pub fn delete(&mut self, key: &PolicyKey) {
        let version = self.next_version();
        let Some(object) = self.policies.get_mut(key) else {
            return;
        };
        if !object.anchored {
            self.policies.remove(key);
        } else if !object.deleting {
            object.deleting = true;
            object.policy.generation += 1;
            object.version = version;
        }
    }

    pub fn approve(&mut self, key: &PolicyKey, annotation: &str) {
        let version = self.next_version();
        if let Some(object) = self.policies.get_mut(key) {
            object.approvals = Approvals::parse(Some(annotation));
            object.version = version;
        }
    }

    pub fn set_tailnet(&mut self, change: impl FnOnce(&mut TailnetObject)) {
        change(&mut self.tailnet);
        self.tailnet.version = self.next_version();
    }

    /// Writes a status over the version behind it.
    pub fn write(
        &mut self,
        key: &PolicyKey,
        over: u64,
        report: &PolicyReport,
    ) -> Result<u64, Refused> {
        let object = self.policies.get_mut(key);
        let own = object.filter(|object| object.policy.uid == report.uid);
        let object = own.ok_or(Refused::Gone)?;
        if object.version != over {
            return Err(Refused::Outdated);
        }
        object.record = recorded::through_status(report);
        object.report = Some(Box::new(report.clone()));
        object.anchored = !object.record.managed.is_empty();
        let is_over = object.deleting && !object.anchored;
        let version = self.next_version();
        if is_over {
            self.policies.remove(key);
        } else if let Some(object) = self.policies.get_mut(key) {
            object.version = version;
        }
        Ok(version)
    }

    pub fn write_tailnet(&mut self, over: u64, report: &TailnetReport) -> Result<u64, Refused> {
        if self.tailnet.version != over {
            return Err(Refused::Outdated);
        }
        if let Some(recent) = &report.recent {
            let declared = &mut self.tailnet.declared;
            declared.recent.clone_from(recent);
            declared.reserved.clone_from(&report.reserved);
            declared.deletions.clone_from(&report.deletions);
        }
        self.tailnet.version = self.next_version();
        Ok(self.tailnet.version)
    }
}
