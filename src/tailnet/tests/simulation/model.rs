//! A model of a tailnet: the behavior of the API, and its failures.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::story;
use crate::{
    model::{
        Attributes, Device, DeviceField, NodeId, Reason, ReportedAttribute, Route, RouteSet,
        SettingValue, Tag, TagSet, UnreadableDevice, UnreadableDevices, UnreadableFields,
    },
    plan::{AttributeWrites, Call},
    tailnet::{Answer, Failure, Request, Retry},
};

/// The state of the control server. Unverified facts about it are switches.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub devices: BTreeMap<NodeId, Device>,
    pub attributes: BTreeMap<NodeId, Attributes>,
    /// New tags on a device disable its key expiry.
    pub tags_disable_expiry: bool,
    /// The credential lacks the scope for routes, so lists omit them.
    pub list_hides_routes: bool,
    /// A tag without an owner in the policy file.
    pub unowned_tag: Option<Tag>,
    /// A batch that has an entry for this device is refused as a whole.
    pub refuses_attributes_of: Option<NodeId>,
    /// The API always refuses an address for this device.
    pub refuses_address_of: Option<NodeId>,
    /// Requests for this device always fail.
    pub broken: Option<NodeId>,
    /// The list leaves this device out.
    pub left_out: Option<NodeId>,
    /// The fields of devices that answers have in a form that cannot be read.
    pub unreadable: BTreeMap<NodeId, UnreadableFields>,
    /// Answers have this device without an identity that can be read.
    pub unnamed: Option<NodeId>,
    /// After so many lists, everything can be read again.
    pub unreadable_lists: usize,
    /// The devices that the next lists lack, one set for each list.
    pub short: VecDeque<BTreeSet<NodeId>>,
    /// The next list has these devices twice, the second time with another hostname.
    pub twice: BTreeSet<NodeId>,
    /// Deletions of attributes are accepted but have no effect.
    pub keeps_attributes: bool,
    /// When a request expired the key of a device.
    pub expired: Vec<(Timestamp, NodeId)>,
    /// When a request changed a device.
    pub written: Vec<(Timestamp, NodeId)>,
    /// When a request deleted a device.
    pub deleted: Vec<(Timestamp, NodeId)>,
    /// Responses have no time.
    pub hides_the_time: bool,
    /// Requests for these devices are never answered.
    pub hanging: BTreeSet<NodeId>,
    /// Devices that requests changed, whether or not the responses arrived.
    pub changed: BTreeSet<NodeId>,
    now: Timestamp,
}

impl Model {
    pub fn add(&mut self, device: Device) {
        self.attributes.entry(device.node_id.clone()).or_default();
        self.devices.insert(device.node_id.clone(), device);
    }

    pub fn remove(&mut self, id: &NodeId) {
        self.devices.remove(id);
        self.attributes.remove(id);
    }

    /// The server removes attributes whose time has passed.
    pub fn expire(&mut self, now: Timestamp) {
        self.now = now;
        for attributes in self.attributes.values_mut() {
            attributes.retain(|_, value| value.expiry.is_none_or(|expiry| expiry > now));
        }
    }

    /// A device that someone has just changed.
    pub fn told(&self, id: &NodeId) -> String {
        let device = story::device(&self.devices[id]);
        format!(
            "People change {device}, attributes {}.",
            story::attributes(&self.attributes[id])
        )
    }

    /// The faults that concern single devices.
    pub fn disturbed(&self) -> String {
        format!(
            "Attributes of {:?} are refused, requests for {:?} fail, lists leave out {:?}; attributes are \
             kept when deleted: {}.",
            self.refuses_attributes_of, self.broken, self.left_out, self.keeps_attributes
        )
    }

    pub fn answer(&mut self, request: &Request) -> Result<Answer, Failure> {
        match request {
            Request::Devices => {
                self.count_unreadable_list();
                let lacking = self.short.pop_front().unwrap_or_default();
                let twice = std::mem::take(&mut self.twice);
                let again = |device: &Device| {
                    let hostname = format!("{}-again", device.hostname);
                    let device = device.clone();
                    let other = Device { hostname, ..device };
                    twice.contains(&other.node_id).then_some(other)
                };
                let listed = self.devices.values();
                let listed = listed
                    .filter(|device| self.unnamed.as_ref() != Some(&device.node_id))
                    .filter(|device| self.left_out.as_ref() != Some(&device.node_id))
                    .filter(|device| !lacking.contains(&device.node_id));
                Ok(Answer::Devices {
                    devices: listed
                        .flat_map(|device| [Some(device.clone()), again(device)])
                        .flatten()
                        .map(|device| self.reported(&device))
                        .collect(),
                    skipped: self.skipped(),
                    date: (!self.hides_the_time).then_some(self.now),
                    lacks: BTreeSet::new(),
                })
            }
            Request::Device(id) if self.unnamed.as_ref() == Some(id) => {
                Err(failure(Reason::DeviceUnreadable, Retry::Later))
            }
            Request::Device(id) => Ok(Answer::Device(Box::new(self.reported(self.device(id)?)))),
            Request::Routes(id) if self.is_unreadable(id, DeviceField::EnabledRoutes) => {
                Err(failure(Reason::DeviceUnreadable, Retry::Later))
            }
            Request::Routes(id) => Ok(Answer::Routes(
                self.device(id)?.enabled_routes.clone().unwrap_or_default(),
            )),
            Request::Attributes(id) => {
                self.device(id)?;
                let mut values = self.attributes[id].clone();
                if self.is_unreadable(id, DeviceField::Attributes) {
                    let unknown = |value: &mut _| *value = ReportedAttribute::unknown();
                    values.values_mut().for_each(unknown);
                }
                Ok(Answer::Attributes(values))
            }
            Request::Write(call) => {
                self.write(call)?;
                self.changed.extend(call.nodes().into_iter().cloned());
                let written = call.nodes().into_iter().cloned();
                self.written.extend(written.map(|id| (self.now, id)));
                Ok(Answer::Written)
            }
        }
    }

    pub fn reported(&self, device: &Device) -> Device {
        let mut device = device.clone();
        if self.list_hides_routes {
            device.enabled_routes = None;
        }
        match self.unreadable.get(&device.node_id) {
            Some(fields) => without(device, *fields),
            None => device,
        }
    }

    fn skipped(&self) -> UnreadableDevices {
        let mut skipped = UnreadableDevices::default();
        if self.unnamed.is_some() {
            skipped.push(UnreadableDevice {
                device: "devices[0]".to_owned(),
                fields: vec!["nodeId"],
            });
        }
        skipped
    }

    fn is_unreadable(&self, id: &NodeId, field: DeviceField) -> bool {
        let fields = self.unreadable.get(id);
        fields.is_some_and(|fields| fields.has(field))
    }

    /// A list is answered: after the last one with unreadable devices, everything can be read.
    fn count_unreadable_list(&mut self) {
        let was_last = self.unreadable_lists == 1;
        self.unreadable_lists = self.unreadable_lists.saturating_sub(1);
        if was_last {
            self.read_all();
        }
    }

    /// Everything can be read again.
    pub fn read_all(&mut self) {
        self.unreadable.clear();
        self.unnamed = None;
        self.unreadable_lists = 0;
    }

    pub fn device(&self, id: &NodeId) -> Result<&Device, Failure> {
        if self.broken.as_ref() == Some(id) {
            return Err(failure(Reason::ApiError, Retry::Later));
        }
        self.devices
            .get(id)
            .ok_or_else(|| failure(Reason::DeviceNotFound, Retry::Never))
    }

    pub fn write(&mut self, call: &Call) -> Result<(), Failure> {
        for id in call.nodes() {
            self.device(id)?;
        }
        match call {
            Call::WriteAttributes(nodes) => return self.write_attributes(nodes),
            Call::SetTags(_, tags)
                if tags
                    .iter()
                    .any(|tag| self.unowned_tag.as_ref() == Some(tag)) =>
            {
                return Err(failure(Reason::TagsNotPermitted, Retry::Never));
            }
            Call::Set(id, SettingValue::Name(label))
                if self.others(id).any(|other| other.label() == *label) =>
            {
                return Err(failure(Reason::NameTaken, Retry::Later));
            }
            Call::Set(id, SettingValue::Ipv4(_))
                if self.refuses_address_of.as_ref() == Some(id) =>
            {
                return Err(failure(Reason::Refused, Retry::Never));
            }
            Call::Set(id, SettingValue::Ipv4(addr))
                if self.others(id).any(|other| other.holds(addr.addr())) =>
            {
                return Err(failure(Reason::AddressInUse, Retry::Later));
            }
            _ => {}
        }
        let (disable, now) = (self.tags_disable_expiry, self.now);
        let id = call.nodes()[0].clone();
        let Some(device) = self.devices.get_mut(&id) else {
            return Ok(());
        };
        match call {
            Call::Set(_, SettingValue::Authorized(value)) => device.authorized = *value,
            Call::SetTags(_, tags) => {
                device.tags.clone_from(tags);
                device.key_expiry_disabled |= disable;
            }
            Call::Set(_, SettingValue::KeyExpiryDisabled(value)) => {
                device.key_expiry_disabled = *value;
            }
            Call::SetRoutes(_, routes) => device.enabled_routes = Some(routes.clone()),
            Call::Set(_, SettingValue::Name(label)) => {
                device.name = format!("{label}.tail1.ts.net");
            }
            Call::Set(_, SettingValue::Ipv4(addr)) => device.ipv4 = Some(addr.addr()),
            Call::ExpireKey(_) => {
                let later = device.expires.is_none_or(|expires| expires > now);
                if later {
                    device.expires = Some(now);
                    self.expired.push((now, id));
                }
            }
            Call::Delete(_) => {
                self.remove(&id);
                self.deleted.push((now, id));
            }
            Call::WriteAttributes(_) => {}
        }
        Ok(())
    }

    pub fn others<'a>(&'a self, id: &'a NodeId) -> impl Iterator<Item = &'a Device> {
        self.devices
            .values()
            .filter(move |other| other.node_id != *id)
    }

    pub fn write_attributes(
        &mut self,
        nodes: &BTreeMap<NodeId, AttributeWrites>,
    ) -> Result<(), Failure> {
        if nodes
            .keys()
            .any(|id| self.refuses_attributes_of.as_ref() == Some(id))
        {
            return Err(failure(Reason::Refused, Retry::Never));
        }
        for (id, writes) in nodes {
            let attributes = self.attributes.entry(id.clone()).or_default();
            for (key, desired) in writes {
                if desired.is_none() && self.keeps_attributes {
                    continue;
                }
                attributes.remove(key);
                if let Some(desired) = desired {
                    let value = desired.value.to_json();
                    let expiry = desired.expiry;
                    attributes.insert(key.clone(), ReportedAttribute { value, expiry });
                }
            }
        }
        Ok(())
    }
}

/// A device as the client reads it when it cannot read these fields.
fn without(device: Device, fields: UnreadableFields) -> Device {
    let mut read = device;
    let blank = Device::plain(read.node_id.clone());
    for field in DeviceField::ALL {
        if fields.has(field) {
            forget(&mut read, field, &blank);
        }
    }
    Device {
        unreadable: fields,
        ..read
    }
}

fn forget(device: &mut Device, field: DeviceField, blank: &Device) {
    match field {
        DeviceField::Id => device.legacy_id.clone_from(&blank.legacy_id),
        DeviceField::Name => device.name.clone_from(&blank.name),
        DeviceField::Hostname => device.hostname.clone_from(&blank.hostname),
        DeviceField::User => device.user.clone_from(&blank.user),
        DeviceField::Tags => device.tags = TagSet::new(),
        DeviceField::Addresses => device.ipv4 = None,
        DeviceField::Os => device.os.clone_from(&blank.os),
        DeviceField::ClientVersion => device.client_version.clone_from(&blank.client_version),
        DeviceField::UpdateAvailable => device.update_available = false,
        DeviceField::IsEphemeral => device.ephemeral = false,
        DeviceField::Created => device.created = None,
        DeviceField::Authorized => device.authorized = false,
        DeviceField::IsExternal => device.external = false,
        DeviceField::ConnectedToControl => device.connected = None,
        DeviceField::KeyExpiryDisabled => device.key_expiry_disabled = false,
        DeviceField::Expires => device.expires = None,
        DeviceField::LastSeen => device.last_seen = None,
        DeviceField::EnabledRoutes => device.enabled_routes = None,
        DeviceField::AdvertisedRoutes => device.advertised_routes = None,
        DeviceField::TailnetLockError => device.lock_error.clear(),
        // In an answer of its own.
        DeviceField::Attributes => {}
    }
}

/// The device of a request, if it has one.
pub fn device_of(request: &Request) -> Option<&NodeId> {
    match request {
        Request::Devices => None,
        Request::Device(id) | Request::Routes(id) | Request::Attributes(id) => Some(id),
        Request::Write(call) => call.nodes().first().copied(),
    }
}

pub fn failure(reason: Reason, retry: Retry) -> Failure {
    Failure {
        reason,
        message: format!("{reason}"),
        retry,
        unknown_outcome: false,
    }
}

/// An untagged, authorized device of a user.
pub fn device(number: usize) -> Device {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    Device {
        legacy_id: format!("{}", 1000 + number),
        name: format!("name-{number}.tail1.ts.net"),
        hostname: format!("host-{number}"),
        user: "amelie@example.com".to_owned(),
        ipv4: Some([100, 80, high, low].into()),
        os: "linux".to_owned(),
        client_version: "1.96.2".to_owned(),
        created: Some("2025-01-05T08:00:00Z".parse().unwrap()),
        enabled_routes: Some(RouteSet::new()),
        advertised_routes: Some(Route::exit_node()),
        ..Device::plain(node_id(number))
    }
}

pub fn node_id(number: usize) -> NodeId {
    format!("n{number}CNTRL").parse().unwrap()
}

/// The kinds of failures, each with its probability.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The request never arrives.
    pub lost: f64,
    /// The request takes effect, but the response is lost.
    pub answer_lost: f64,
    /// 500 without an effect, which the client cannot know.
    pub server_error: f64,
    /// 429.
    pub rate_limited: f64,
    /// The list answers 503.
    pub list_down: bool,
    /// Status writes of policies fail.
    pub loses_reports: bool,
    /// The longest latency in one direction.
    pub delay: Duration,
    /// The additional latency of the list's response.
    pub list_delay: Duration,
    /// The longest wait for the budget.
    pub queue: Duration,
    /// The longest wait of a write for a connection.
    pub connect: Duration,
}
