//! The state behind the API: one tailnet, its devices, and the injected faults.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    auth::Credentials,
    device::{Device, Record, as_label},
    fault::Faults,
    invite::Invite,
    journal::Journal,
    limit::Window,
    policy::Policy,
    response::Refusal,
    switches::Switches,
};

/// The whole state of the simulator, behind one mutex.
pub(super) struct World {
    pub records: Vec<Record>,
    /// Both ids of each record.
    ids: HashSet<String>,
    pub policy: Policy,
    pub switches: Switches,
    pub credentials: Credentials,
    pub invites: Vec<Invite>,
    /// For each attribute key, regardless of case: its spelling and its type.
    pub attribute_keys: HashMap<String, AttributeKey>,
    /// Labels that a rename freed and that stay taken for a while.
    pub freed_names: HashMap<String, FreedName>,
    pub faults: Faults,
    pub journal: Journal,
    pub window: Window,
    /// The tailnet's names in paths, beside `-`.
    pub tailnet: String,
    next_number: u64,
    next_ipv4: u32,
}

/// The properties that the first write of an attribute key fixes for the whole tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttributeKey {
    pub spelling: String,
    pub kind: ValueKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    String,
    Number,
    Boolean,
}

/// A label that another device may not take before `until`.
#[derive(Debug)]
pub(super) struct FreedName {
    pub node_id: String,
    pub until: Timestamp,
}

impl ValueKind {
    /// The type of a value that an attribute can have.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(_) => Some(Self::String),
            Value::Number(_) => Some(Self::Number),
            Value::Bool(_) => Some(Self::Boolean),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl World {
    pub fn new(credentials: Credentials, switches: Switches, tailnet: String) -> Self {
        Self {
            records: Vec::new(),
            ids: HashSet::new(),
            policy: Policy::default(),
            switches,
            credentials,
            invites: Vec::new(),
            attribute_keys: HashMap::new(),
            freed_names: HashMap::new(),
            faults: Faults::default(),
            journal: Journal::default(),
            window: Window::default(),
            tailnet,
            // Above the ids of the examples on the API page.
            next_number: 20_000,
            next_ipv4: 0,
        }
    }

    /// The simulator's clock.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.saturating_add(self.clock_ahead()).unwrap_or(now)
    }

    /// The offset of the simulator's clock from the machine's.
    pub fn clock_ahead(&self) -> SignedDuration {
        SignedDuration::from_secs(self.switches.clock_ahead_seconds.into())
    }

    /// A number that is unique in this tailnet.
    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        // A file of devices may already use the number.
        while self.ids.contains(&self.next_number.to_string()) {
            self.next_number += 1;
        }
        self.next_number
    }

    /// Any device, shared in or not, without its expired attributes.
    pub fn any_record(&mut self, id: &str) -> Result<&mut Record, Refusal> {
        let now = self.now();
        let record = self
            .records
            .iter_mut()
            .find(|record| record.device.has_id(id))
            .ok_or_else(Refusal::no_such_device)?;
        record.drop_expired(now);
        Ok(record)
    }

    /// A device of this tailnet; one that is shared in cannot be managed.
    pub fn own_record(&mut self, id: &str) -> Result<&mut Record, Refusal> {
        let record = self.any_record(id)?;
        if record.device.is_external {
            return Err(Refusal::no_such_device());
        }
        Ok(record)
    }

    /// Adds a device and generates its missing ids, name, and addresses.
    pub fn add(&mut self, mut record: Record) -> Result<&Record, Refusal> {
        // Before the check: it chooses the ids.
        self.complete(&mut record.device);
        let ids = [record.device.id.clone(), record.device.node_id.clone()];
        if let Some(id) = ids.iter().find(|id| self.ids.contains(*id)) {
            let message = format!("a device with the id {id} exists already");
            return Err(Refusal::bad_request(message));
        }
        self.ids.extend(ids);
        // The first value fixes the type, also if a file of devices has it.
        for (key, attribute) in &record.attributes {
            self.learn_key(key, &attribute.value);
        }
        self.records.push(record);
        self.records.last().ok_or_else(Refusal::no_such_device)
    }

    fn complete(&mut self, device: &mut Device) {
        if device.id.is_empty() {
            device.id = self.next_number().to_string();
        }
        if device.node_id.is_empty() {
            device.node_id = format!("n{}CNTRL", device.id);
        }
        if device.hostname.is_empty() {
            device.hostname = match device.label() {
                "" => format!("device-{}", device.id),
                label => label.to_owned(),
            };
        }
        if device.name.is_empty() {
            let label = self.free_label(&as_label(&device.hostname), &device.node_id);
            device.name = format!("{label}.{DOMAIN}");
        }
        if device.addresses.is_empty() {
            let ipv4 = self.free_ipv4();
            device.addresses = vec![ipv4.into(), ipv6_of(ipv4).into()];
        }
    }

    /// `wanted`, or `wanted-1`, `wanted-2` … if another device has it.
    pub fn free_label(&self, wanted: &str, node_id: &str) -> String {
        let taken = |label: &str| {
            let mut devices = self.records.iter().map(|record| &record.device);
            devices.any(|device| device.node_id != node_id && device.label() == label)
        };
        if !taken(wanted) {
            return wanted.to_owned();
        }
        let mut numbered = (1_u32..).map(|number| format!("{wanted}-{number}"));
        numbered.find(|label| !taken(label)).unwrap_or_default()
    }

    fn free_ipv4(&mut self) -> Ipv4Addr {
        loop {
            // From 100.64.0.0 to 100.99.255.255, outside of the reserved ranges.
            self.next_ipv4 = (self.next_ipv4 + 1) % (36 << 16);
            let ipv4 = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + self.next_ipv4);
            if self.holder_of(ipv4).is_none() {
                return ipv4;
            }
        }
    }

    /// The device that has an address.
    pub fn holder_of(&self, ipv4: Ipv4Addr) -> Option<&Device> {
        let mut devices = self.records.iter().map(|record| &record.device);
        devices.find(|device| device.ipv4() == Some(ipv4))
    }

    /// Removes a device and the invites to it.
    pub fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        let found = self
            .records
            .iter()
            .position(|record| record.device.has_id(id));
        let at = found.ok_or_else(Refusal::no_such_device)?;
        let gone = self.records.remove(at);
        self.ids.remove(&gone.device.id);
        self.ids.remove(&gone.device.node_id);
        // An invite to a device that is gone cannot be accepted.
        self.invites.retain(|invite| !invite.is_to(&gone.device));
        Ok(())
    }

    /// Changes a device outside of the API, by a merge patch. Its ids must stay.
    pub fn drift(&mut self, id: &str, patch: &Value) -> Result<Value, Refusal> {
        let record = self.any_record(id)?;
        let mut json = record.to_json()?;
        merge(&mut json, patch);
        let patched = Record::from_json(json)?;
        let (before, after) = (&record.device, &patched.device);
        if (&before.id, &before.node_id) != (&after.id, &after.node_id) {
            return Err(Refusal::bad_request("the ids of a device cannot change"));
        }
        // Only now: a refused patch changes nothing.
        *record = patched.clone();
        for (key, attribute) in &patched.attributes {
            self.learn_key(key, &attribute.value);
        }
        Ok(patched.to_json()?)
    }

    /// Fixes the type of a key by its first value.
    pub fn learn_key(&mut self, key: &str, value: &Value) {
        if let Some(kind) = ValueKind::of(value) {
            let spelling = key.to_owned();
            self.attribute_keys
                .entry(key.to_ascii_lowercase())
                .or_insert(AttributeKey { spelling, kind });
        }
    }
}

/// The domain of devices without a name.
pub(super) const DOMAIN: &str = "tail5a1e.ts.net";

/// An IPv6 that embeds the IPv4, as Tailscale's older ones do (fd7a:115c:a1e0:ab12:4843:cd96:62xx:xxxx).
pub(super) fn ipv6_of(ipv4: Ipv4Addr) -> std::net::Ipv6Addr {
    let [_, b, c, d] = ipv4.octets();
    let (high, low) = (u16::from_be_bytes([0x62, b]), u16::from_be_bytes([c, d]));
    [0xfd7a, 0x115c, 0xa1e0, 0xab12, 0x4843, 0xcd96, high, low].into()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(members) = target.as_object_mut() else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), change);
        }
    }
}
