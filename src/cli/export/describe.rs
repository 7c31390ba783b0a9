//! Describes a device by desired settings that it already has.

use std::{collections::BTreeMap, str::FromStr, sync::LazyLock};

use clap::{ValueEnum, builder::PossibleValue};
use jiff::Timestamp;

use super::description::{Description, Facts, Id, too_many};
use crate::{
    api::{PostureAttribute, TailscaleDevicePolicySpec as Spec},
    convert,
    model::{
        AttributeKey, AttributeString, Attributes, Device, DeviceField, FieldKind, ListSetting,
        PolicyField, Refused, ReportedAttribute, SafeInteger, Setting, SettingValue,
    },
    plan::Owner,
};

/// A field that declares a setting, named as in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported(pub PolicyField);

impl Exported {
    /// Its place in a manifest: the usual fields come first.
    pub fn position(self) -> Option<usize> {
        ALL.iter().position(|field| *field == self)
    }
}

/// The fields that are written unless others are named.
pub const USUAL: [Exported; 5] = [
    Exported(PolicyField::Tags),
    Exported(PolicyField::KeyExpiry),
    Exported(PolicyField::EnabledRoutes),
    Exported(PolicyField::ExitNode),
    Exported(PolicyField::PostureAttributes),
];

/// All fields but the one-shot actions, which no device has.
static ALL: LazyLock<Vec<Exported>> = LazyLock::new(|| {
    let others = PolicyField::ALL.into_iter().filter(|field| {
        let is_action = matches!(
            field.kind(),
            FieldKind::ExpireKeyAt | FieldKind::DeleteInactive
        );
        !is_action && !USUAL.contains(&Exported(*field))
    });
    USUAL.into_iter().chain(others.map(Exported)).collect()
});

impl ValueEnum for Exported {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

/// Why a field of routes is left out.
const ROUTES_UNREAD: &str =
    "the API does not report routes. Give the credential the scope devices:routes:read";

/// The limit of the resource's schema (`src/api/rules/settings.rs`).
const MAX_ATTRIBUTES: usize = 64;

const UNREADABLE: &str = "the API reports it in a form that cannot be read";

/// What to describe of each device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub fields: &'a [Exported],
    /// Also what a device without any setting has.
    pub defaults: bool,
    pub now: Timestamp,
}

/// What a device is.
pub(super) fn facts(device: &Device) -> Facts {
    Facts {
        tags: device.tags.clone(),
        user: device.user.clone(),
        os: device.os.clone(),
        resource: String::new(),
        is_uncertain: !device.unreadable.is_empty(),
    }
}

/// Describes a device by the settings that it has now. `attributes` is `None` if they were not read:
/// then the description leaves them out.
pub(super) fn describe(
    device: &Device,
    attributes: Option<&Attributes>,
    wanted: Wanted<'_>,
) -> Description {
    let description = Description {
        id: Id::Node(device.node_id.to_string()),
        label: device.label().to_string(),
        title: title(device),
        facts: facts(device),
        desired: Spec::default(),
        gaps: Vec::new(),
    };
    let mut describer = Describer {
        device,
        wanted,
        description,
    };
    for Exported(field) in wanted.fields {
        match field.kind() {
            FieldKind::Setting(setting) => describer.setting(setting),
            FieldKind::List(list) => match list {
                ListSetting::Tags => describer.tags(),
                ListSetting::EnabledRoutes => describer.routes(),
                ListSetting::ExitNode => describer.exit_node(),
            },
            FieldKind::PostureAttributes => {
                if let Some(attributes) = attributes {
                    describer.attributes(attributes);
                }
            }
            FieldKind::ExpireKeyAt | FieldKind::DeleteInactive => {}
        }
    }
    describer.description
}

/// The identity of a device, in one line.
fn title(device: &Device) -> String {
    let owner = match Owner::of(device) {
        Owner::User(login) => format!("of {login}"),
        Owner::Tagged => "tagged".to_owned(),
    };
    format!(
        "{}, node {}, hostname {}, {}, {owner}",
        device.name, device.node_id, device.hostname, device.os
    )
}

struct Describer<'a> {
    device: &'a Device,
    wanted: Wanted<'a>,
    description: Description,
}

impl Describer<'_> {
    fn gap(&mut self, setting: &str, why: &str) {
        self.description.gap(setting, why);
    }

    fn tags(&mut self) {
        if self.device.is_unknown(DeviceField::Tags) {
            return self.gap("tags", UNREADABLE);
        }
        self.description.declare_tags(&self.device.tags);
    }

    fn why_no_routes(&self) -> &'static str {
        if self.device.is_unknown(DeviceField::EnabledRoutes) {
            UNREADABLE
        } else {
            ROUTES_UNREAD
        }
    }

    fn routes(&mut self) {
        // Unknown is not none: a policy with [] would withdraw all routes.
        match &self.device.enabled_routes {
            None => self.gap("enabledRoutes", self.why_no_routes()),
            Some(enabled) => self
                .description
                .declare_routes(enabled, self.wanted.defaults),
        }
    }

    fn exit_node(&mut self) {
        match &self.device.enabled_routes {
            None => self.gap("exitNode", self.why_no_routes()),
            Some(enabled) => self
                .description
                .declare_exit_node(enabled, self.wanted.defaults),
        }
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let mut desired: BTreeMap<String, PostureAttribute> = BTreeMap::new();
        for (key, reported) in attributes {
            // Keys are unique without regard to case in the whole tailnet, so one policy cannot
            // hold both.
            let other = desired
                .keys()
                .find(|other| other.eq_ignore_ascii_case(key.as_str()));
            let value = match other {
                Some(other) => Err(Refused(format!("differs from {other} only in case"))),
                None if desired.len() == MAX_ATTRIBUTES => {
                    Err(Refused(too_many(attributes.len(), MAX_ATTRIBUTES)))
                }
                None => desired_value(key, reported, self.wanted.now),
            };
            match value {
                Ok(value) => {
                    desired.insert(key.to_string(), value);
                }
                Err(Refused(why)) => self.gap(&format!("postureAttributes[{key}]"), &why),
            }
        }
        if !desired.is_empty() {
            self.description.desired.posture_attributes = Some(desired);
        }
    }

    /// Never declares `authorized: false`: whether the device was denied or still needs its approval is unknown.
    fn setting(&mut self, setting: Setting) {
        let why = match setting.of(self.device).map(|value| value.as_desired()) {
            Some(Ok(SettingValue::Authorized(false))) => {
                "the device is not authorized. Declare authorized: true to authorize it".to_owned()
            }
            // Tailscale's default: each device has it that nobody has decided about.
            Some(Ok(SettingValue::KeyExpiryDisabled(false))) if !self.wanted.defaults => return,
            Some(Ok(value)) => {
                return convert::declare(&mut self.description.desired, &value);
            }
            Some(Err(refused)) => refused.0,
            None if self.device.is_unknown(setting.reported_in()) => UNREADABLE.to_owned(),
            None => "the device has none".to_owned(),
        };
        self.gap(setting.field().as_str(), &why);
    }
}

fn desired_value(
    key: &AttributeKey,
    reported: &ReportedAttribute,
    now: Timestamp,
) -> Result<PostureAttribute, Refused> {
    AttributeKey::from_str(key.as_str())?;
    if reported.expiry.is_some_and(|expiry| expiry <= now) {
        let why = "its expiry has passed, and the tailnet is about to remove it";
        return Err(Refused(why.to_owned()));
    }
    let mut desired = PostureAttribute {
        // To the second, as the plan compares expiries.
        expiry: reported.expiry.map(|expiry| format!("{expiry:.0}")),
        ..PostureAttribute::default()
    };
    match &reported.value {
        serde_json::Value::Bool(flag) => desired.boolean = Some(*flag),
        serde_json::Value::String(text) => {
            AttributeString::from_str(text)?;
            desired.string = Some(text.clone());
        }
        other => match integer(other) {
            Some(number) => desired.integer = Some(number),
            None => {
                return Err(Refused(format!(
                    "found {other}, expected a string, boolean, or integer that a policy can hold"
                )));
            }
        },
    }
    Ok(desired)
}

/// JSON has one type of number: 3.0 is 3.
fn integer(value: &serde_json::Value) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast of a float saturates, and SafeInteger refuses what is out of range"
    )]
    let number = value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0)?;
        Some(float as i64)
    })?;
    SafeInteger::try_from(number).ok().map(|_| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PolicyInput, PolicyKey};

    fn declared(spec: &Spec) -> PolicyInput {
        let key = PolicyKey::new("network", "fra");
        convert::policy(key, String::new(), 1, Timestamp::UNIX_EPOCH, spec, None)
    }

    #[test]
    fn each_setting_is_described_as_it_is() {
        for setting in Setting::ALL {
            for value in setting.examples() {
                let mut device = Device::plain("n1CNTRL".parse().unwrap());
                value.apply(&mut device);
                let field = Exported(setting.field());
                assert!(Exported::value_variants().contains(&field));
                let wanted = Wanted {
                    fields: &[field],
                    defaults: true,
                    now: Timestamp::UNIX_EPOCH,
                };
                let described = describe(&device, None, wanted);
                if value == SettingValue::Authorized(false) {
                    assert_eq!(described.gaps.len(), 1);
                    continue;
                }
                let spec = Spec {
                    device: Some(crate::api::DeviceReference {
                        node_id: Some(device.node_id.to_string()),
                        ..crate::api::DeviceReference::default()
                    }),
                    ..described.desired
                };
                let policy = declared(&spec).policy.unwrap();
                assert_eq!(policy.desired.fields(), [setting.field()]);
                assert_eq!(policy.desired.settings.get(setting), Some(&value));
            }
        }
    }
}
