//! A field that cannot be read is unknown, and concerns no other field and no other device.

use serde_json::{Value, json};

use super::listed_device;
use crate::{
    model::{Device, DeviceField, NodeId, UnreadableFields},
    tailscale::device_list::ListReader,
};

const RECORDED: &[u8] = include_bytes!("../../../tests/recorded/devices.json");

fn list(json: &[u8]) -> (Vec<Device>, usize) {
    let mut reader = ListReader::default();
    reader.read(json).unwrap();
    let (devices, skipped) = reader.finish().unwrap();
    (devices, skipped.total)
}

/// A complete device, of the recording.
fn whole() -> Value {
    let recorded: Value = serde_json::from_slice(RECORDED).unwrap();
    let mut device = recorded["devices"][0].clone();
    device["tags"] = json!(["tag:a"]);
    device["isEphemeral"] = json!(false);
    device
}

fn read(device: &Value) -> Device {
    let device = listed_device(device.to_string().as_bytes(), "devices[0]");
    device.unwrap().unwrap()
}

/// Every field that is read, but the identity.
const FIELDS: [DeviceField; 20] = [
    DeviceField::Id,
    DeviceField::Name,
    DeviceField::Hostname,
    DeviceField::User,
    DeviceField::Tags,
    DeviceField::Addresses,
    DeviceField::Os,
    DeviceField::ClientVersion,
    DeviceField::UpdateAvailable,
    DeviceField::IsEphemeral,
    DeviceField::Created,
    DeviceField::Authorized,
    DeviceField::IsExternal,
    DeviceField::ConnectedToControl,
    DeviceField::KeyExpiryDisabled,
    DeviceField::Expires,
    DeviceField::LastSeen,
    DeviceField::EnabledRoutes,
    DeviceField::AdvertisedRoutes,
    DeviceField::TailnetLockError,
];

/// What every field can be that is not what the API documents.
fn malformed(field: DeviceField) -> Vec<Value> {
    let mut forms = vec![Value::Null, json!(7), json!({"a": 1}), json!([7])];
    let is_text = matches!(
        field,
        DeviceField::Id
            | DeviceField::Name
            | DeviceField::Hostname
            | DeviceField::User
            | DeviceField::Os
            | DeviceField::ClientVersion
            | DeviceField::TailnetLockError
    );
    if !is_text {
        forms.extend([json!("garbage"), json!(["garbage"]), json!(["10.0.0.0"])]);
    }
    if field == DeviceField::Addresses {
        // An address without a prefix length is the right form here.
        forms.pop();
    }
    forms
}

#[test]
fn each_malformed_field_is_unknown_alone() {
    let expected = read(&whole());
    assert!(expected.unreadable.is_empty(), "{}", expected.unreadable);
    for field in FIELDS {
        for form in malformed(field) {
            let mut device = whole();
            device[field.as_str()] = form.clone();
            let found = read(&device);
            let unknown: UnreadableFields = [field].into_iter().collect();
            assert_eq!(found.unreadable, unknown, "{field}: {form}");
            let others = json!({"devices": [whole(), device, whole()]}).to_string();
            let (devices, skipped) = list(others.as_bytes());
            assert_eq!((devices.len(), skipped), (3, 0), "{field}: {form}");
            assert_eq!((&devices[0], &devices[2]), (&expected, &expected));
        }
    }
}

#[test]
fn a_field_that_every_device_has_is_unknown_where_it_is_missing() {
    for field in [
        DeviceField::Name,
        DeviceField::Hostname,
        DeviceField::User,
        DeviceField::Addresses,
        DeviceField::Os,
        DeviceField::ClientVersion,
        DeviceField::Authorized,
        DeviceField::IsExternal,
        DeviceField::KeyExpiryDisabled,
    ] {
        let mut device = whole();
        device.as_object_mut().unwrap().remove(field.as_str());
        assert!(read(&device).is_unknown(field), "{field}");
    }
    let mut untagged = whole();
    untagged.as_object_mut().unwrap().remove("tags");
    assert!(read(&untagged).unreadable.is_empty(), "absent means none");
}

#[test]
fn an_expiry_before_its_device_or_tailscale_existed_is_unknown() {
    for (created, expires, is_known) in [
        ("2024-01-01T00:00:00Z", "2023-12-31T00:00:00Z", false),
        ("2024-01-01T00:00:00Z", "2024-06-29T00:00:00Z", true),
        ("", "2018-06-29T00:00:00Z", false),
        ("2024-01-01T00:00:00Z", "0001-01-01T00:00:00Z", true),
        ("2024-01-01T00:00:00Z", "2099-01-01T00:00:00Z", true),
    ] {
        let mut device = whole();
        device["created"] = json!(created);
        device["expires"] = json!(expires);
        let found = read(&device);
        assert_eq!(
            !found.is_unknown(DeviceField::Expires),
            is_known,
            "{expires}"
        );
    }
}

#[test]
fn a_time_is_read_by_the_grammar_of_manifests() {
    let expires = |text: &str| {
        let mut device = whole();
        device["expires"] = json!(text);
        let found = read(&device);
        let time = found.expires.map(|time| time.to_string());
        (!found.is_unknown(DeviceField::Expires)).then_some(time)
    };
    let last = Some(Some("9999-12-30T22:00:00Z".to_owned()));
    assert_eq!(expires("9999-12-31T23:59:59Z"), last);
    assert_eq!(expires("0001-01-01T00:00:00Z"), Some(None));
    for text in ["2099-01-01T00:00:00+0100", "2099-01-01T00:00:00Z[UTC]"] {
        assert_eq!(expires(text), None, "{text}");
    }
}

#[test]
fn an_identity_that_cannot_be_read_is_skipped_and_counted() {
    for id in [Value::Null, json!(7), json!("../n1"), json!("")] {
        let mut device = whole();
        device["nodeId"] = id.clone();
        device["id"] = json!("");
        let json = json!({"devices": [whole(), device]}).to_string();
        let (devices, skipped) = list(json.as_bytes());
        assert_eq!((devices.len(), skipped), (1, 1), "{id}");
    }
}

#[test]
fn the_recorded_list_is_read_completely() {
    let (devices, skipped) = list(RECORDED);
    assert_eq!((devices.len(), skipped), (18, 0));
    let unreadable: Vec<_> = devices.iter().filter_map(Device::unread).collect();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    let never_expire = devices.iter().filter(|it| it.key_expiry_disabled);
    assert_eq!(never_expire.count(), 7);
    let ids: std::collections::BTreeSet<&NodeId> = devices.iter().map(|it| &it.node_id).collect();
    assert_eq!(ids.len(), 18);
}
