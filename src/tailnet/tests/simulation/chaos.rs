//! Random events of the simulated world: edits, drift, devices that join and leave, failures.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{
    Broken, Kept, World,
    builders::policy_key,
    choices::Choices,
    model::{self, Faults, Model},
    story,
};
use crate::{
    convert::fixtures::guardrails,
    model::Setting,
    model::{
        AttributeKey, Attributes, ChangeLimit, DeviceField, NodeId, ReportedAttribute, Route,
        UnreadableFields,
    },
    plan::{Approvals, ApprovedOn, Deletion, Labels, Policy, PolicyKey},
    tailnet::Input,
};

pub const DEVICES: usize = 5;
pub const POLICIES: usize = 6;

impl World {
    pub fn populate(&mut self) {
        self.model.tags_disable_expiry = self.rng.bool();
        self.model.list_hides_routes = self.rng.one_in(4);
        for number in 0..DEVICES {
            if self.rng.begin_step() {
                let device = self.device(number);
                self.tell(|| format!("There is {}.", story::device(&device)));
                self.model.add(device);
            }
        }
    }

    /// One random edit, drift, or failure.
    pub fn disturb(&mut self) {
        match self.rng.u8(..27) {
            0..=4 => self.drift(),
            5..=9 => {
                let mut policy = self.policy();
                if self.rng.one_in(3) {
                    policy.deletion = Deletion::Clear;
                }
                if self.rng.one_in(3)
                    && let Some(kept) = self.policies.get(&policy.key)
                {
                    policy = kept.policy.clone();
                    self.revert(&mut policy);
                }
                // An edit of an object that is being deleted changes nothing.
                let kept = self.policies.get(&policy.key);
                if kept.is_none_or(|kept| !kept.deleting) {
                    self.apply(policy);
                }
            }
            10 => {
                let key = policy_key(self.rng.usize(..POLICIES));
                self.delete(&key);
            }
            11 => self.come_or_go(),
            12 => self.kill(),
            13 => self.lose_the_lead(),
            14 => {
                let down = self.rng.one_in(3);
                self.faults.list_down = down;
                self.tell(|| format!("Lists fail: {down}."));
            }
            15 => {
                self.model.refuses_attributes_of = self.some_device();
                self.model.broken = self.some_device();
                self.model.left_out = self.some_device();
                self.model.keeps_attributes = self.rng.bool();
                self.tell(|| self.model.disturbed());
            }
            16 => {
                let tag = self.rng.bool().then(|| self.tag());
                self.tell(|| format!("The tag that nobody may give: {tag:?}."));
                self.model.unowned_tag = tag;
            }
            17 => self.new_faults(),
            18 => self.step(Input::connection(Ok(()))),
            19 => self.approve_something(),
            25 => {
                self.approve_something();
                self.undo();
            }
            21 => self.break_some_spec(),
            22 => {
                let key = policy_key(self.rng.usize(..POLICIES));
                self.replace(&key);
            }
            20 => {
                let limits = [ChangeLimit::Devices(2), ChangeLimit::NONE];
                let limit = limits[self.rng.usize(..2)];
                self.limit(limit);
            }
            23 | 24 => self.shorten_lists(),
            26 => self.ask_for_a_forbidden_tag(),
            _ => {}
        }
    }

    /// A revert of the commits that added some fields to a policy, or that removed one.
    fn revert(&mut self, policy: &mut Policy) {
        let other = self.desired();
        let desired = &mut policy.desired;
        for _ in 0..self.rng.usize(1..4) {
            match self.rng.u8(..6) {
                0 => desired.enabled_routes = None,
                1 => desired.exit_node = None,
                2 => desired.attributes = None,
                3 => desired.settings.unset(Setting::KeyExpiry),
                4 => desired.enabled_routes = other.enabled_routes.clone(),
                _ => desired.attributes = other.attributes.clone(),
            }
        }
    }

    /// As [`World::disturb`], and at times someone signs in on a device again, or the API reports a device in a
    /// form that cannot be read.
    pub fn disturb_oddly(&mut self) {
        match self.rng.u8(..6) {
            0 => self.sign_in_again(),
            1 => self.garble(),
            _ => self.disturb(),
        }
    }

    /// Policies are added and devices change before the first poll.
    pub fn disturb_policies(&mut self) {
        if self.rng.bool() {
            let mut policy = self.policy();
            policy.deletion = Deletion::Retain;
            self.apply(policy);
        } else {
            self.drift();
        }
    }

    /// The next lists lack a device or half of them, or one list has some of them twice.
    pub fn shorten_lists(&mut self) {
        let ids: Vec<NodeId> = self.model.devices.keys().cloned().collect();
        for _ in 0..self.rng.usize(1..4) {
            let few = self.rng.usize(..2) + 1;
            let count = [few, ids.len() / 2][self.rng.usize(..2)];
            let first = self.rng.usize(..=ids.len().saturating_sub(count));
            let lacking = ids.iter().skip(first).take(count).cloned();
            self.model.short.push_back(lacking.collect());
        }
        if self.rng.one_in(4) {
            self.model.twice = self.some_device().into_iter().collect();
        }
        let Model { short, twice, .. } = &self.model;
        self.tell(|| format!("The next lists lack {short:?}, or have twice {twice:?}."));
    }

    pub fn guard(&mut self, spec: &Value) {
        self.tell(|| format!("The guardrails are {spec}."));
        self.settings.guardrails = guardrails(spec);
        self.step(Input::Settings(self.settings.clone()));
    }

    pub fn label(&mut self, team: Option<&str>) {
        self.tell(|| format!("The label of the namespace is {team:?}."));
        let labels: Labels = team
            .map(|team| ("team".to_owned(), team.to_owned()))
            .into_iter()
            .collect();
        self.namespaces.insert("network".to_owned(), labels.clone());
        self.step(Input::Namespace("network".to_owned(), Some(labels)));
    }

    pub fn new_faults(&mut self) {
        let share = |rng: &mut Choices| if rng.bool() { rng.f64() * 0.2 } else { 0.0 };
        self.faults = Faults {
            lost: share(&mut self.rng),
            answer_lost: share(&mut self.rng),
            server_error: share(&mut self.rng),
            rate_limited: share(&mut self.rng),
            list_down: false,
            loses_reports: false,
            delay: Duration::from_millis(10 << self.rng.u32(..9)),
            list_delay: Duration::from_secs(self.rng.u64(..10)),
            queue: self.wait(),
            connect: self.wait(),
        };
        self.tell(|| format!("From now on: {}.", story::faults(&self.faults)));
    }

    /// Mostly no wait. At times longer than any read stays fresh.
    pub fn wait(&mut self) -> Duration {
        match self.rng.u8(..4) {
            0 => Duration::from_millis(self.rng.u64(..2_000)),
            1 => Duration::from_millis(self.rng.u64(..20_000)),
            _ => Duration::ZERO,
        }
    }

    pub fn limit(&mut self, limit: ChangeLimit) {
        self.tell(|| format!("The limit is {limit}."));
        self.settings.limit = limit;
        self.limited_since = self.clock;
        self.step(Input::Settings(self.settings.clone()));
    }

    /// Approves a plan that the status of some policy shows as held.
    pub fn approve_something(&mut self) {
        let held = self.policies.keys().filter_map(|key| {
            let report = self.last_reports.get(key)?;
            Some((key.clone(), report.held.clone()?))
        });
        let held: Vec<_> = held.collect();
        let Some((key, plan)) = self.rng.choice(held) else {
            return;
        };
        let annotation = format!("plan:{}", plan.hash);
        match plan.on {
            ApprovedOn::Policy => self.approve(&key, &annotation),
            ApprovedOn::Tailnet => {
                self.tell(|| format!("People annotate the tailnet with {annotation}."));
                self.tailnet.approvals = Approvals::parse(Some(&annotation));
                self.show_tailnet_object();
            }
        }
    }

    /// Someone signs in on a device again: it loses its tags.
    fn sign_in_again(&mut self) {
        let users = ["amelie@example.com", "bert@example.com", "eve@example.com"];
        let user = users[self.rng.usize(..3)];
        let Some(id) = self.some_device() else {
            return;
        };
        if let Some(device) = self.model.devices.get_mut(&id) {
            device.tags.clear();
            user.clone_into(&mut device.user);
            self.drifted.insert(id.clone(), self.clock);
            self.tell(|| format!("{user} signs in on {id}."));
        }
    }

    /// For some lists, fields of a device cannot be read, or not even its identity.
    fn garble(&mut self) {
        let (id, other) = (self.some_device(), self.some_device());
        let fields = (0..self.rng.usize(1..4)).map(|_| {
            let all = DeviceField::ALL;
            all[self.rng.usize(..all.len())]
        });
        let fields: UnreadableFields = fields.collect();
        self.model.unreadable_lists = self.rng.usize(1..6);
        self.tell(|| {
            format!("Of {id:?}, {fields} cannot be read, of {other:?} not even the identity.")
        });
        self.model.unreadable = id.map(|id| (id, fields)).into_iter().collect();
        self.model.unnamed = other.filter(|_| self.rng.bool());
    }

    /// A policy wants a tag that nobody may give, and nobody corrects it for a while.
    fn ask_for_a_forbidden_tag(&mut self) {
        let tag = self.tag();
        self.tell(|| format!("The tag that nobody may give: {tag}."));
        self.model.unowned_tag = Some(tag.clone());
        let mut policy = self.policy();
        policy.desired.tags = Some([tag].into());
        if self
            .policies
            .get(&policy.key)
            .is_none_or(|kept| !kept.deleting)
        {
            self.apply(policy);
        }
        let pause = Duration::from_millis(self.rng.u64(..300_000));
        self.run_for(pause);
    }

    /// A while later, someone sets all devices back to what they are now.
    fn undo(&mut self) {
        let (devices, attributes) = (self.model.devices.clone(), self.model.attributes.clone());
        let pause = self.pause();
        self.run_for(pause);
        for (id, now) in &mut self.model.devices {
            if let (Some(device), Some(attributes)) = (devices.get(id), attributes.get(id)) {
                now.clone_from(device);
                self.model.attributes.insert(id.clone(), attributes.clone());
                self.drifted.insert(id.clone(), self.clock);
            }
        }
        self.tell(|| "People set all devices back.".to_owned());
    }

    /// The time between two events: mostly some seconds, at times several lists.
    pub fn pause(&mut self) -> Duration {
        let longest = if self.rng.one_in(8) { 300_000 } else { 30_000 };
        Duration::from_millis(self.rng.u64(..longest))
    }

    /// Time passes and something is disturbed, again and again; then everything calms down.
    pub fn live(&mut self, disturb: impl Fn(&mut Self)) {
        for _ in 0..self.rng.usize(5..60) {
            if !self.rng.begin_step() {
                continue;
            }
            let pause = self.pause();
            self.run_for(pause);
            disturb(self);
        }
        self.rng.begin_step();
        self.calm_down();
    }

    /// Ends all failures and denials. Plans that were approved and not sent are held again.
    pub fn calm_down(&mut self) {
        self.tell(|| "All faults end, and the manifests are corrected.".to_owned());
        self.limit(ChangeLimit::NONE);
        self.correct_all();
        self.kill();
        self.faults = Faults {
            delay: Duration::from_millis(100),
            ..Faults::default()
        };
        self.model.refuses_attributes_of = None;
        self.model.broken = None;
        self.model.left_out = None;
        self.model.short.clear();
        self.model.twice.clear();
        self.model.keeps_attributes = false;
        self.model.unowned_tag = None;
        self.model.read_all();
    }

    /// A term starts after all objects have been listed again.
    pub fn start_term(&mut self) {
        self.show_tailnet_object();
        let known = self.policies.keys().chain(self.engine.policies().keys());
        for key in known.cloned().collect::<BTreeSet<PolicyKey>>() {
            self.show_policy(&key);
        }
        self.term = self.term.next();
        self.step(Input::Term(Some(self.term)));
    }

    pub fn end_term(&mut self) {
        self.step(Input::Term(None));
    }

    pub fn lose_the_lead(&mut self) {
        self.end_term();
        let pause = Duration::from_millis(self.rng.u64(..20_000));
        self.run_for(pause);
        self.start_term();
    }

    /// Makes a spec invalid, or unreadable as a newer release would.
    pub fn break_some_spec(&mut self) {
        let key = policy_key(self.rng.usize(..POLICIES));
        let broken = [Broken::Invalid, Broken::Unreadable][self.rng.usize(..2)];
        let kept = self.policies.get(&key);
        if kept.is_some_and(|kept| !kept.deleting) {
            self.break_spec(&key, broken);
        }
    }

    /// Corrects all manifests.
    pub fn correct_all(&mut self) {
        let broken = |kept: &&mut Kept| kept.broken != Broken::Valid;
        let mut corrected = Vec::new();
        for kept in self.policies.values_mut().filter(broken) {
            kept.broken = Broken::Valid;
            kept.policy.generation += 1;
            corrected.push(kept.policy.key.clone());
        }
        for key in corrected {
            self.watch_soon(key);
        }
    }

    pub fn some_device(&mut self) -> Option<NodeId> {
        self.rng
            .bool()
            .then(|| model::node_id(self.rng.usize(..DEVICES)))
    }

    /// A device leaves, comes back, or is replaced by another one of its name.
    pub fn come_or_go(&mut self) {
        let number = self.rng.usize(..DEVICES);
        let id = model::node_id(number);
        if self.model.devices.contains_key(&id) && self.rng.bool() {
            self.tell(|| format!("{id} leaves."));
            self.model.remove(&id);
            let mut other = self.device(number);
            other.node_id = model::node_id(100 + number);
            // The API gives no id to two devices.
            other.legacy_id = (1100 + number).to_string();
            if self.rng.bool() && !self.model.devices.contains_key(&other.node_id) {
                self.tell(|| format!("{} joins.", story::device(&other)));
                self.model.add(other);
            }
        } else if !self.model.devices.contains_key(&id) {
            let mut device = self.device(number);
            let name = self.rng.u8(..3);
            device.name = format!("name-{number}-{name}.tail1.ts.net");
            if self
                .model
                .devices
                .values()
                .any(|other| other.ipv4 == device.ipv4)
            {
                device.ipv4 = None;
            }
            self.tell(|| format!("{} joins.", story::device(&device)));
            self.model.add(device);
        }
    }

    /// Someone changes a device in the admin console.
    pub fn drift(&mut self) {
        let ids: Vec<NodeId> = self.model.devices.keys().cloned().collect();
        let Some(id) = self.rng.choice(ids) else {
            return;
        };
        let (tags, routes, exit) = (self.tags(), self.routes(), self.rng.bool());
        let (key, desired) = (self.attribute_key(), self.attribute());
        let flag = self.rng.bool();
        let field = self.rng.u8(..6);
        let device = self.model.devices.get_mut(&id).unwrap();
        match field {
            0 => {
                device.tags.extend(tags);
                self.drifted.insert(id.clone(), self.clock);
            }
            1 => device.key_expiry_disabled = flag,
            2 => {
                let exit = exit.then(Route::exit_node).into_iter().flatten();
                device.enabled_routes = Some(routes.into_iter().chain(exit).collect());
                self.drifted.insert(id.clone(), self.clock);
            }
            3 => device.authorized = flag,
            4 => device.hostname = format!("host-{}", number_of(&key)),
            _ => {
                let attributes: &mut Attributes = self.model.attributes.get_mut(&id).unwrap();
                attributes.remove(&key);
                if flag {
                    let value = desired.value.to_json();
                    let expiry = desired.expiry;
                    attributes.insert(key, ReportedAttribute { value, expiry });
                }
            }
        }
        self.tell(|| self.model.told(&id));
    }
}

pub fn number_of(key: &AttributeKey) -> &str {
    key.as_str()
        .trim_start_matches(|letter| letter != '0' && letter != '1' && letter != '2')
}
