//! Random events of two processes: outages, edits, drift.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::{
    super::{
        builders::{attributes, blank, hostname, key, policy_key, string, tag, with_tag},
        model::{device, node_id},
        story,
    },
    Event, Pair,
    account::{DELETED_A_DAY, LIMIT},
};
use crate::{
    convert::fixtures::guardrails,
    model::SettingValue,
    model::{ChangeLimit, NodeId, ReportedAttribute, Route, TagSet},
    plan::{
        ApprovedOn, DeleteInactive, Deletion, DesiredSettings, DeviceTarget, Identity,
        ListOwnership, Mode, Ownership, Policy, PolicyKey, Suspender, Target,
    },
};

/// The processes as a story names them.
const NAMES: [&str; 2] = ["Engine A", "Engine B"];
const DEVICES: usize = 6;
/// The fleet policy that requires approval.
const ASKING: usize = 2;
const POLICIES: usize = 7;

/// The policy that deletes devices.
pub fn deleting() -> PolicyKey {
    policy_key(6)
}

impl Pair {
    pub fn populate(&mut self) {
        let long_ago = self.wall() - SignedDuration::from_hours(24 * 60);
        for number in 0..DEVICES {
            let mut device = device(number);
            device.tags = [tag(["tag:s", "tag:t"][number % 2])].into();
            device.expires = Some(self.wall() + SignedDuration::from_hours(24 * 90));
            self.model.add(device);
        }
        for number in 10..14 {
            let mut device = device(number);
            device.tags = [tag("tag:old")].into();
            device.connected = Some(false);
            device.last_seen = Some(long_ago);
            self.model.add(device);
        }
        if self.rng.u8(..3) > 0 {
            self.new_faults();
        }
        self.account.limited = self.rng.one_in(3);
        let limit = self.account.limited.then_some(ChangeLimit::Devices(LIMIT));
        self.store.set_tailnet(|tailnet| {
            tailnet.settings.limit = limit.unwrap_or(ChangeLimit::NONE);
        });
        for number in 0..POLICIES {
            if self.rng.u8(..3) > 0 {
                self.edit(number);
            }
        }
        self.account.note_tags(self.clock, &self.model);
        self.account.note_store(self.clock, &self.store);
    }

    /// One random edit, drift, or failure.
    pub fn disturb(&mut self) {
        let process = self.rng.usize(..2);
        match self.rng.u8(..24) {
            0..=3 => {
                let number = self.rng.usize(..POLICIES);
                self.edit(number);
                // An edit is reverted, at times while its requests are in flight.
                if self.rng.bool() {
                    let soon = Duration::from_millis(self.rng.u64(..8_000));
                    self.run_for(soon);
                    self.edit(number);
                }
            }
            4 => self.delete(),
            5..=7 => self.approve(),
            8..=12 => self.drift(),
            13..=15 => self.cut_off(process),
            16 | 17 => self.reconnect(process),
            18 => {
                let pause = Duration::from_millis(self.rng.u64(..40_000));
                if self.processes[process]
                    .paused
                    .is_none_or(|until| until <= self.clock)
                {
                    self.tell(|| format!("{} stands still for {pause:?}.", NAMES[process]));
                    self.processes[process].paused = Some(self.clock + pause);
                }
            }
            19 => self.kill(process),
            20 => self.stop(process),
            21 => self.new_faults(),
            22 => self.suspend(),
            _ => {
                self.reconnect(0);
                self.reconnect(1);
            }
        }
        self.account.note_tags(self.clock, &self.model);
        self.account.note_store(self.clock, &self.store);
    }

    fn new_faults(&mut self) {
        let mut share = || {
            if self.rng.bool() {
                self.rng.f64() * 0.15
            } else {
                0.0
            }
        };
        self.faults.lost = share();
        self.faults.answer_lost = share();
        self.faults.rate_limited = share();
        self.faults.delay = Duration::from_millis(10 << self.rng.u32(..9));
        self.faults.list_delay = Duration::from_secs(self.rng.u64(..5));
        let mut wait = || Duration::from_millis([0, 2_000, 12_000, 40_000][self.rng.usize(..4)]);
        self.faults.queue = wait();
        self.faults.connect = wait();
        self.tell(|| format!("From now on: {}.", story::faults(&self.faults)));
    }

    fn suspend(&mut self) {
        let suspends = self.rng.bool();
        self.tell(|| format!("The tailnet is suspended: {suspends}."));
        let guardrails = guardrails(&json!({"suspend": suspends, "allowedPolicies": [{}]}));
        self.store
            .set_tailnet(|tailnet| tailnet.settings.guardrails = guardrails);
        self.show_tailnet();
    }

    // --- The processes ---

    fn cut_off(&mut self, process: usize) {
        self.tell(|| format!("{} is cut off from Kubernetes.", NAMES[process]));
        self.processes[process].online = false;
    }

    /// The API server is reachable again. The watches stay in backoff for a while.
    pub fn reconnect(&mut self, process: usize) {
        self.tell(|| format!("{} reaches Kubernetes.", NAMES[process]));
        let one = &mut self.processes[process];
        let was_online = std::mem::replace(&mut one.online, true);
        if one.dead || was_online || one.starts_with.is_some() {
            return;
        }
        one.round += 1;
        let round = one.round;
        let backoff = Duration::from_millis(self.rng.u64(..30_000));
        self.after(process, backoff, Event::List(round));
    }

    /// Kills a process, as SIGKILL does. It starts again a while later.
    fn kill(&mut self, process: usize) {
        self.tell(|| format!("{} is killed.", NAMES[process]));
        let one = &mut self.processes[process];
        if one.dead {
            return;
        }
        one.life = self.next + 1_000_000;
        one.dead = true;
        let pause = Duration::from_millis(self.rng.u64(..20_000));
        self.after(process, pause, Event::Start);
    }

    /// Stops a process, as SIGTERM does: in-flight requests finish, and the lease is released.
    fn stop(&mut self, process: usize) {
        let life = self.processes[process].life;
        let one = &self.processes[process];
        // A process that is stopped by SIGSTOP takes no other signal.
        if one.paused.is_some_and(|until| until > self.clock) {
            return;
        }
        if self.store.lease.holder == Some(life) && one.online && !one.dead {
            self.store.lease.holder = None;
        }
        self.kill(process);
    }

    // --- The policies ---

    fn edit(&mut self, number: usize) {
        let policy = self.policy(number);
        let at = policy.desired.expire_key_at;
        self.account.times.extend(at);
        let key = policy.key.clone();
        self.tell(|| format!("People apply {}.", story::policy(&policy)));
        self.store.apply(policy);
        self.account.note_store(self.clock, &self.store);
        self.show(&key);
    }

    fn delete(&mut self) {
        let key = policy_key(self.rng.usize(..POLICIES));
        self.tell(|| format!("People delete {key}."));
        self.store.delete(&key);
        self.show(&key);
    }

    /// Approves a held plan that a status shows.
    fn approve(&mut self) {
        let held = self.store.policies.iter().filter_map(|(key, object)| {
            let plan = object.report.as_ref()?.held.as_ref()?;
            let new = !object.approvals.plans.contains(&plan.hash);
            let on_policy = plan.on == ApprovedOn::Policy && new;
            on_policy.then(|| (key.clone(), object.policy.uid.clone(), plan.hash.clone()))
        });
        let held: Vec<(PolicyKey, String, _)> = held.collect();
        for (key, uid, hash) in held {
            self.account.note_approval(&uid);
            self.tell(|| format!("People annotate {key} with plan:{hash}."));
            self.store.approve(&key, &format!("plan:{hash}"));
            self.show(&key);
        }
    }

    fn policy(&mut self, number: usize) -> Policy {
        let fleet = with_tag(["tag:s", "tag:t"][self.rng.usize(..2)]);
        let node = |number| {
            Target::Device(DeviceTarget {
                identity: Identity::NodeId(node_id(number)),
                tags: TagSet::new(),
                users: Vec::new(),
            })
        };
        let (target, desired) = match number {
            0 => (fleet, self.tags()),
            1 => (fleet, self.attributes(&["k0", "k1"])),
            ASKING => (fleet, self.attributes(&["a"])),
            3 => (node(self.rng.usize(..3)), self.routes()),
            4 => (node(4), self.expiry()),
            5 => (hostname("host-5"), self.key_expiry()),
            _ => (with_tag("tag:old"), deletions()),
        };
        let modes = [
            Mode::Enforce,
            Mode::Suspended(Suspender::Policy),
            Mode::Observe,
        ];
        let mode = match number {
            ASKING => Mode::Approve,
            _ if self.rng.one_in(5) => modes[self.rng.usize(..3)],
            _ => Mode::Enforce,
        };
        let clears = matches!(number, 1 | ASKING) && self.rng.one_in(3);
        let routes = [ListOwnership::Exact, ListOwnership::AtLeast][self.rng.usize(..2)];
        Policy {
            target,
            desired,
            mode,
            created: self.wall(),
            ownership: Ownership {
                tags: ListOwnership::AtLeast,
                enabled_routes: routes,
                ..Ownership::default()
            },
            deletion: if clears {
                Deletion::Clear
            } else {
                Deletion::Retain
            },
            ..blank(policy_key(number))
        }
    }

    fn tags(&mut self) -> DesiredSettings {
        let all = [tag("tag:x"), tag("tag:y")];
        let some = all.into_iter().filter(|_| self.rng.bool());
        DesiredSettings {
            tags: Some(some.collect()),
            ..DesiredSettings::default()
        }
    }

    fn attributes(&mut self, names: &[&str]) -> DesiredSettings {
        let some = names.iter().filter(|_| self.rng.u8(..3) > 0);
        let some: Vec<&str> = some.copied().collect();
        let value = ["gold", "silver"][self.rng.usize(..2)];
        let some: Vec<(&str, &str)> = some.into_iter().map(|name| (name, value)).collect();
        attributes(&some)
    }

    fn routes(&mut self) -> DesiredSettings {
        let routes: [Route; 2] = ["10.0.0.0/16", "10.1.0.0/16"].map(|it| it.parse().unwrap());
        let some = routes.into_iter().filter(|_| self.rng.bool());
        DesiredSettings {
            enabled_routes: Some(some.collect()),
            ..DesiredSettings::default()
        }
    }

    fn expiry(&mut self) -> DesiredSettings {
        let soon = self.wall() + SignedDuration::from_secs(self.rng.i64(20..200));
        DesiredSettings {
            expire_key_at: Some(soon),
            ..DesiredSettings::default()
        }
    }

    fn key_expiry(&mut self) -> DesiredSettings {
        DesiredSettings {
            settings: [SettingValue::KeyExpiryDisabled(self.rng.bool())].into(),
            ..DesiredSettings::default()
        }
    }

    // --- The devices ---

    fn tell(&self, line: impl FnOnce() -> String) {
        story::tell(self.clock, line);
    }

    /// Someone changes a device in the admin console.
    fn drift(&mut self) {
        let id = node_id(self.rng.usize(..DEVICES));
        let now = self.clock;
        self.account.note_drift(now, &id);
        let dice = self.rng.u8(..8);
        let value = ["gold", "silver", "human"][self.rng.usize(..3)];
        let name = key(["k0", "k1", "a"][self.rng.usize(..3)]);
        match dice {
            0..=2 => self.set_attribute(&id, &name, value),
            3 => {
                self.model.attributes.get_mut(&id).unwrap().remove(&name);
            }
            4 => self.switch_tags(&id),
            5 => {
                let tags = ["tag:h", "tag:x"][self.rng.usize(..2)];
                let device = self.model.devices.get_mut(&id).unwrap();
                if !device.tags.remove(&tag(tags)) {
                    device.tags.insert(tag(tags));
                }
            }
            6 => {
                let route: [Route; 3] =
                    ["10.0.0.0/16", "10.1.0.0/16", "10.9.0.0/16"].map(|it| it.parse().unwrap());
                let route = route[self.rng.usize(..3)];
                let device = self.model.devices.get_mut(&id).unwrap();
                let routes = device.enabled_routes.get_or_insert_default();
                if !routes.remove(&route) {
                    routes.insert(route);
                }
            }
            _ => {
                let later = self.wall() + SignedDuration::from_hours(24 * 90);
                let flag = self.rng.bool();
                let device = self.model.devices.get_mut(&id).unwrap();
                device.key_expiry_disabled = flag && id != node_id(4);
                device.expires = Some(later);
            }
        }
        self.tell(|| self.model.told(&id));
    }

    fn set_attribute(&mut self, id: &NodeId, name: &crate::model::AttributeKey, value: &str) {
        let device = self.model.devices[id].clone();
        let on = (&self.store, &device);
        self.account.note_human(self.clock, id, name, on);
        let value = ReportedAttribute {
            value: string(value).to_json(),
            expiry: None,
        };
        let attributes = self.model.attributes.get_mut(id).unwrap();
        attributes.insert(name.clone(), value);
    }

    /// The device moves from one fleet to the other.
    fn switch_tags(&mut self, id: &NodeId) {
        let device = self.model.devices.get_mut(id).unwrap();
        let (from, to) = if device.tags.contains(&tag("tag:s")) {
            ("tag:s", "tag:t")
        } else {
            ("tag:t", "tag:s")
        };
        device.tags.remove(&tag(from));
        device.tags.insert(tag(to));
    }
}

fn deletions() -> DesiredSettings {
    DesiredSettings {
        delete_inactive: Some(DeleteInactive {
            inactive_for: SignedDuration::from_hours(24 * 30),
            max_per_day: DELETED_A_DAY,
        }),
        ..DesiredSettings::default()
    }
}
