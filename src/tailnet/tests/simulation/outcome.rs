//! The expected end state of the world, compared with the real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::World;
use crate::{
    model::{AttributeKey, Attributes, Device, NodeId, PolicyField, SettingValue},
    plan::{
        ApprovalStates, Binding, Change, Deletion, DeviceIndex, DevicePlan, Difference, Hold, Mode,
        PlanContext, Policy, PolicyKey, PolicyPermissions, PolicyRecord, Released, SplitPolicies,
        TailnetWide, Target, bind_policy, plan_device, tests::causes::unexplained,
    },
    tailnet::{DETAILS, State},
};

/// The policies that the guardrails allow, also those that are being deleted and may not clear their devices yet.
type Admitted = Vec<(Policy, PolicyRecord)>;

impl World {
    /// Every desired setting that takes precedence and is not held is applied, and the last report of each
    /// policy says so.
    pub fn assert_converged(&self) {
        let fleet = DeviceIndex::new(self.model.devices.values().cloned());
        let mut held_by: BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>> = BTreeMap::new();
        let mut unbound: Vec<(&PolicyKey, Binding)> = Vec::new();
        let mut fleets: Vec<(&PolicyKey, BTreeSet<NodeId>)> = Vec::new();
        let guards = self.guards();
        let mut admitted: BTreeMap<&PolicyKey, (Policy, PolicyRecord)> = BTreeMap::new();
        for (key, kept) in &self.policies {
            match guards.admit(kept.policy.clone()) {
                Ok(policy) => {
                    admitted.insert(key, (policy, kept.record.met(&fleet)));
                }
                Err(forbidden) => {
                    let reported = &self.last_reports[key].state;
                    assert_eq!(*reported, State::NotAllowed(Box::new(forbidden)), "{key}");
                }
            }
        }
        for (key, (policy, record)) in &admitted {
            let kept = &self.policies[*key];
            if kept.deleting {
                // The release is pending approval, and nobody approves anything anymore.
                let report = &self.last_reports[*key];
                let asks = policy.mode == Mode::Approve && report.held.is_some();
                assert!(asks, "{key} is held up: {report:?}");
                continue;
            }
            let binding = bind_policy(policy, record, &kept.approvals, &fleet);
            for id in binding.nodes() {
                let policies = held_by.entry(id.clone()).or_default();
                policies.push((policy, record));
            }
            self.assert_managed(policy, record, &binding, &fleet);
            match binding {
                Binding::Device(_) => {}
                Binding::Selector(nodes) => fleets.push((key, nodes)),
                binding => unbound.push((key, binding)),
            }
        }
        for (key, binding) in unbound {
            let report = &self.last_reports[key].state;
            let State::Unbound {
                binding: reported, ..
            } = report
            else {
                panic!("{key} is {binding:?}, but is reported as {report:?}");
            };
            assert_eq!(*reported, binding, "{key}");
        }
        let released: BTreeMap<&NodeId, SplitPolicies> = held_by
            .iter()
            .filter_map(|(id, policies)| {
                let guardrails = &self.settings.guardrails;
                let permissions = PolicyPermissions::on(fleet.get(id)?, policies, &[], guardrails);
                Some((id, permissions.split(policies)))
            })
            .collect();
        let counting = held_by
            .iter()
            .filter_map(|(id, policies)| Some((id.clone(), released.get(id)?.counting(policies))));
        let mut counting: BTreeMap<NodeId, Vec<_>> = counting.collect();
        let admitted: Admitted = admitted.values().cloned().collect();
        let mut read = self.needed_attributes(&held_by, &fleet, &admitted);
        // A policy that may not clear them yet has had them read too: their types count.
        for (_, record) in admitted.iter().filter(|(policy, _)| policy.clears()) {
            for (id, attributes) in self.keys_to_clear(record) {
                counting.entry(id.clone()).or_default();
                read.insert(id, attributes);
            }
        }
        let tailnet_wide = TailnetWide::among(&counting, &read, self.wall());
        let plans: BTreeMap<NodeId, DevicePlan> = held_by
            .iter()
            .map(|(id, policies)| {
                (
                    id.clone(),
                    self.assert_reached(id, policies, &fleet, &tailnet_wide, &admitted),
                )
            })
            .collect();
        for (key, nodes) in fleets {
            self.assert_fleet_reported(key, &nodes, &plans);
        }
    }

    /// The attributes that the engine reads: those of devices for which a policy needs them.
    pub fn needed_attributes(
        &self,
        held_by: &BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>>,
        fleet: &DeviceIndex,
        admitted: &Admitted,
    ) -> BTreeMap<NodeId, Attributes> {
        let read = self.model.attributes.iter().filter(|(id, _)| {
            held_by.get(*id).is_some_and(|policies| {
                let plan = self.plan(id, policies, fleet, &TailnetWide::default(), admitted);
                plan.owners.need_attributes()
            })
        });
        read.map(|(id, attributes)| (id.clone(), attributes.clone()))
            .collect()
    }

    /// The attributes of the released devices on which a record still has keys to clear.
    fn keys_to_clear(&self, record: &PolicyRecord) -> Vec<(NodeId, Attributes)> {
        let released = record.managed.released_devices().into_iter();
        let with_keys = released.filter(|id| {
            !record.managed.due(id).keys.is_empty()
                || record.owned.nodes().any(|owned| owned == *id)
        });
        let read =
            with_keys.filter_map(|id| Some((id.clone(), self.model.attributes.get(id)?.clone())));
        read.collect()
    }

    pub fn plan(
        &self,
        id: &NodeId,
        policies: &[(&Policy, &PolicyRecord)],
        fleet: &DeviceIndex,
        tailnet_wide: &TailnetWide,
        admitted: &Admitted,
    ) -> DevicePlan {
        let clearing = admitted.iter().filter(|(policy, _)| policy.clears());
        let released = clearing.map(|(policy, record)| Released {
            policy: policy.key.clone(),
            settings: record.managed.due(id),
            allowance: policy.allowance.clone(),
            mode: policy.mode,
        });
        let released: Vec<Released> = released.filter(|it| !it.settings.is_empty()).collect();
        plan_device(
            &self.model.devices[id],
            self.model.attributes.get(id),
            policies,
            &PlanContext {
                index: fleet,
                approvals: &ApprovalStates::default(),
                tailnet_wide,
                now: self.wall(),
                released: &released,
                turns: &BTreeSet::new(),
                guardrails: &self.settings.guardrails,
            },
        )
    }

    /// The report of a fleet has the right counts and at most a few details.
    pub fn assert_fleet_reported(
        &self,
        key: &PolicyKey,
        nodes: &BTreeSet<NodeId>,
        plans: &BTreeMap<NodeId, DevicePlan>,
    ) {
        let report = &self.last_reports[key];
        let State::Selector(reported) = &report.state else {
            panic!("{key} is about a fleet, but is reported as {report:?}");
        };
        let different = |id: &NodeId| plans[id].of(key).count();
        let lost = |id: &NodeId| plans[id].conflicts_of(key).next().is_some();
        let count = |wanted: &dyn Fn(&NodeId) -> bool| nodes.iter().filter(|id| wanted(id)).count();
        assert_eq!(reported.matched, nodes.len(), "{key}: {reported:#?}");
        assert_eq!(
            reported.in_sync,
            count(&|id| different(id) == 0 && !lost(id)),
            "{key}: {reported:#?}"
        );
        assert_eq!(reported.conflicted, count(&lost), "{key}");
        assert_eq!(
            reported.out_of_sync,
            nodes.iter().map(different).sum::<usize>(),
            "{key}"
        );
        assert_eq!(
            [reported.working, reported.unread, reported.failed],
            [0; 3],
            "{key}: {reported:#?}"
        );
        assert_eq!(reported.details.len(), nodes.len().min(DETAILS), "{key}");
        assert_eq!(
            reported.differences.len(),
            reported.out_of_sync.min(DETAILS),
            "{key}"
        );
    }

    pub fn assert_reached(
        &self,
        id: &NodeId,
        policies: &[(&Policy, &PolicyRecord)],
        fleet: &DeviceIndex,
        tailnet_wide: &TailnetWide,
        admitted: &Admitted,
    ) -> DevicePlan {
        let device = &self.model.devices[id];
        let plan = self.plan(id, policies, fleet, tailnet_wide, admitted);
        let held = plan
            .differences
            .iter()
            .any(|difference| difference.hold.is_some());
        for difference in &plan.differences {
            let waits = (held || plan.lacks_what_waits())
                && matches!(
                    difference.change,
                    Change::Setting {
                        after: SettingValue::Authorized(true),
                        ..
                    }
                );
            assert!(
                difference.hold.is_some() || waits,
                "not reached: {difference:#?}"
            );
        }
        for (policy, record) in policies {
            let key = &policy.key;
            let report = &self.last_reports[key];
            assert_eq!(report.generation, policy.generation, "{key}");
            assert_kept(&report.record, record, key);
            self.assert_owned(policy, record, device, &plan);
            let unexplained = unexplained(
                policy,
                device,
                &self.model.attributes[id],
                &plan,
                self.wall(),
            );
            assert!(unexplained.is_empty(), "{key} on {id}: {unexplained:?}");
            if matches!(policy.target, Target::Selector(_)) {
                continue;
            }
            // Someone else has signed in on it: the policy counts there and sends nothing.
            if let State::Unbound { binding, .. } = &report.state
                && binding.taken_over() == Some(id)
            {
                continue;
            }
            let State::Bound(reported) = &report.state else {
                panic!("{key} holds {id}, but is reported as {report:?}");
            };
            let own: Vec<Difference> = plan.disclosed(key).collect();
            assert_eq!(reported.node, *id, "{key}");
            assert!(
                reported
                    .differences
                    .iter()
                    .map(unnamed)
                    .eq(own.iter().map(unnamed)),
                "{key} is reported to differ in {reported:?}"
            );
            assert!(
                !reported.working && !reported.unread && reported.failures.is_empty(),
                "{key}: {reported:#?}"
            );
        }
        plan
    }
}

/// The report has the same record as the stored status.
pub fn assert_kept(reported: &PolicyRecord, kept: &PolicyRecord, key: &PolicyKey) {
    assert_eq!(reported.owned.groups(), kept.owned.groups(), "{key}");
    let but_keys = |record: &PolicyRecord| PolicyRecord {
        owned: Arc::default(),
        ..record.clone()
    };
    assert_eq!(but_keys(reported), but_keys(kept), "{key}");
}

/// A difference, without the hash by which it is approved, and without its past.
pub fn unnamed(difference: &Difference) -> Difference {
    let mut difference = difference.clone();
    difference.cause = None;
    match &mut difference.hold {
        Some(Hold::Approval(hash)) => *hash = None,
        Some(Hold::Limit(plan)) => *plan = None,
        _ => {}
    }
    difference
}

impl World {
    /// A policy owns the keys that it manages on a device and those that it declares. Keys that it no
    /// longer declares are deleted, unless it is suspended or a guardrail denies the change.
    pub fn assert_owned(
        &self,
        policy: &Policy,
        record: &PolicyRecord,
        device: &Device,
        plan: &DevicePlan,
    ) {
        let key = &policy.key;
        let field = PolicyField::PostureAttributes;
        let is_denied = self
            .settings
            .guardrails
            .denies(policy, field, device)
            .is_some();
        // Someone else has signed in on its device, so nothing is deleted there either.
        let is_taken_over = matches!(self.last_reports[key].state, State::Unbound { .. });
        if policy.mode != Mode::Enforce || is_denied || is_taken_over {
            return;
        }
        let nothing = BTreeSet::new();
        let owned = record.owned.known_at(&device.node_id).unwrap_or(&nothing);
        let managed = plan.managed.get(key).unwrap_or(&nothing);
        assert!(
            managed.is_subset(owned),
            "{key} manages {managed:?}, and owns {owned:?}"
        );
        let declared = policy.desired.attributes.as_ref();
        let desires = |it: &AttributeKey| {
            let declared = declared.is_some_and(|declared| declared.contains_key(it));
            declared && !policy.has_expired(it, self.wall())
        };
        assert!(owned.iter().all(desires), "{key} owns {owned:?}");
    }

    /// A policy manages fields that it declares. Those that its last edit released are reported, unless they
    /// are cleared.
    fn assert_fields(policy: &Policy, record: &PolicyRecord, binding: &Binding) {
        let (key, fields) = (&policy.key, &record.fields);
        let declared = policy.desired.fields();
        let is_certain = matches!(binding, Binding::Device(_) | Binding::Selector(_));
        let waits = policy.deletion == Deletion::Clear && !(policy.clears() && is_certain);
        let mut managed = fields.fields.iter();
        assert!(
            waits || managed.all(|field| declared.contains(field)),
            "{key} manages {fields:?}, and declares {declared:?}"
        );
        if let Some(released) = &fields.released {
            assert_eq!(released.generation, policy.generation, "{key}: {fields:?}");
            let mut stays = released.fields.iter();
            assert!(stays.all(|it| !declared.contains(it)), "{key}: {fields:?}");
        }
    }

    /// A policy records the devices that it would have to clear, and those on which its expression fails.
    /// Released devices are clear.
    pub fn assert_managed(
        &self,
        policy: &Policy,
        record: &PolicyRecord,
        binding: &Binding,
        fleet: &DeviceIndex,
    ) {
        let managed = &record.managed;
        let key = &policy.key;
        Self::assert_fields(policy, record, binding);
        if policy.deletion == Deletion::Retain {
            assert!(managed.is_empty(), "{key} keeps {managed:?}");
        }
        if !policy.clears() {
            return;
        }
        // Changes that guardrails hold are not made.
        let cleared = [
            PolicyField::PostureAttributes,
            PolicyField::EnabledRoutes,
            PolicyField::ExitNode,
        ];
        let guarded = |id: &&NodeId| {
            let bars = |device, field| self.settings.guardrails.denies(policy, field, device);
            let denied = |device| cleared.iter().any(|it| bars(device, *it).is_some());
            fleet.get(id).is_some_and(denied)
        };
        // At the end no one approves anything, not even a device with another owner.
        let waits =
            policy.mode == Mode::Approve || matches!(binding, Binding::IdentityChanged { .. });
        assert!(
            waits || managed.released_devices().iter().all(guarded),
            "{key} has not cleared {managed:?}"
        );
        let puts = policy.has_managed_settings(record);
        if matches!(binding, Binding::Device(_) | Binding::Selector(_)) && puts {
            let selector_errors = |id: &NodeId| match (&policy.target, fleet.get(id)) {
                (Target::Selector(selector), Some(device)) => selector.check(device).is_err(),
                _ => false,
            };
            let mut kept = managed.nodes.iter();
            assert!(
                kept.all(|id| binding.holds(id) || selector_errors(id)),
                "{key}: {managed:?}"
            );
            let mut held = binding.nodes();
            assert!(
                held.all(|id| managed.nodes.contains(id)),
                "{key}: {managed:?}"
            );
        }
    }
}
