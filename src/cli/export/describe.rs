//! Describes a device by desired settings that it already has.

use std::{collections::BTreeMap, str::FromStr, sync::LazyLock};

use clap::{ValueEnum, builder::PossibleValue};
use jiff::Timestamp;

use crate::{
    api::{PostureAttribute, TailscaleDevicePolicySpec as Spec},
    convert,
    model::{
        AttributeKey, AttributeString, Attributes, Device, DeviceField, FieldKind, ListSetting,
        ListValue, PolicyField, ReportedAttribute, Route, RouteSet, SafeInteger, Setting,
        SettingValue, Tag,
    },
    plan::Owner,
};

/// A field that declares a setting, named as in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exported(pub PolicyField);

impl Exported {
    /// Its place in a manifest: the usual fields come first.
    pub fn position(self) -> Option<usize> {
        ALL.iter().position(|field| *field == self)
    }
}

/// The fields that are written unless others are named.
pub(super) const USUAL: [Exported; 5] = [
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

/// A device, and the settings of it that a manifest can declare.
#[derive(Debug, Clone)]
pub(super) struct Description<'a> {
    pub device: &'a Device,
    /// The desired settings, without the `device` that they are for.
    pub desired: Spec,
    /// The settings that no manifest can declare, and why.
    pub gaps: Vec<String>,
}

/// Why a field of routes is left out.
const ROUTES_UNREAD: &str =
    "the API does not report routes. Give the credential the scope devices:routes:read";

/// The limits of the resource's schema (`src/api/rules/settings.rs`).
const MAX_TAGS: usize = 50;
const MAX_TAG_LENGTH: usize = 128;
const MAX_ROUTES: usize = 256;
const MAX_ATTRIBUTES: usize = 64;

const UNREADABLE: &str = "the API reports it in a form that cannot be read";

/// Describes a device by the settings that it has now. `attributes` is `None` if they were not read:
/// then the description leaves them out.
pub(super) fn describe<'a>(
    device: &'a Device,
    attributes: Option<&Attributes>,
    fields: &[Exported],
    now: Timestamp,
) -> Description<'a> {
    let mut description = Description {
        device,
        desired: Spec::default(),
        gaps: Vec::new(),
    };
    for Exported(field) in fields {
        match field.kind() {
            FieldKind::Setting(setting) => description.setting(setting),
            FieldKind::List(list) => match list {
                ListSetting::Tags => description.tags(),
                ListSetting::EnabledRoutes => description.routes(),
                ListSetting::ExitNode => description.exit_node(),
            },
            FieldKind::PostureAttributes => {
                if let Some(attributes) = attributes {
                    description.attributes(attributes, now);
                }
            }
            FieldKind::ExpireKeyAt | FieldKind::DeleteInactive => {}
        }
    }
    description
}

impl Description<'_> {
    /// The identity of the device, in one line.
    pub fn title(&self) -> String {
        let device = self.device;
        let owner = match Owner::of(device) {
            Owner::User(login) => format!("of {login}"),
            Owner::Tagged => "tagged".to_owned(),
        };
        format!(
            "{}, node {}, hostname {}, {}, {owner}",
            device.name, device.node_id, device.hostname, device.os
        )
    }

    fn gap(&mut self, setting: &str, why: &str) {
        self.gaps.push(format!("{setting}: {why}"));
    }

    fn declare_list(&mut self, value: &ListValue) {
        convert::declare_list(&mut self.desired, value);
    }

    /// A device of a user has no tags, and a policy cannot declare that.
    fn tags(&mut self) {
        if self.device.is_unknown(DeviceField::Tags) {
            return self.gap("tags", UNREADABLE);
        }
        let tags = &self.device.tags;
        let invalid = tags.iter().find(|tag| {
            Tag::from_str(tag.as_str()).is_err() || tag.as_str().len() > MAX_TAG_LENGTH
        });
        if let Some(invalid) = invalid {
            let why =
                format!("'{invalid}' is not valid in a policy, so no policy can own the list");
            self.gap("tags", &why);
        } else if tags.len() > MAX_TAGS {
            self.gap("tags", &too_many(tags.len(), MAX_TAGS));
        } else if !tags.is_empty() {
            self.declare_list(&ListValue::Tags(tags.clone()));
        }
    }

    /// Leaves routes out if the device neither has nor advertises any: nobody has decided about them.
    fn routes(&mut self) {
        let subnets = |routes: &RouteSet| ListSetting::EnabledRoutes.among(routes);
        // Unknown is not none: a policy with [] would withdraw all routes.
        let Some(enabled) = &self.device.enabled_routes else {
            self.gap("enabledRoutes", ROUTES_UNREAD);
            return;
        };
        let enabled = subnets(enabled);
        let advertised = self.device.advertised_routes.as_ref();
        if enabled.len() > MAX_ROUTES {
            self.gap("enabledRoutes", &too_many(enabled.len(), MAX_ROUTES));
        } else if !enabled.is_empty()
            // Advertised and not enabled: [] keeps it that way.
            || advertised.is_some_and(|advertised| !subnets(advertised).is_empty())
        {
            self.declare_list(&ListValue::EnabledRoutes(enabled));
        }
    }

    fn exit_node(&mut self) {
        let exit = |routes: &RouteSet| ListSetting::ExitNode.among(routes);
        let Some(enabled) = self.device.enabled_routes.as_ref().map(exit) else {
            self.gap("exitNode", ROUTES_UNREAD);
            return;
        };
        let advertised = self.device.advertised_routes.as_ref().map(exit);
        if enabled == Route::exit_node() {
            self.declare_list(&ListValue::exit_node(true));
        } else if let Some(half) = enabled.first() {
            let why = format!("only {half} of the two routes of an exit node is enabled");
            self.gap("exitNode", &why);
        } else if advertised.is_some_and(|advertised| !advertised.is_empty()) {
            self.declare_list(&ListValue::exit_node(false));
        }
    }

    fn attributes(&mut self, attributes: &Attributes, now: Timestamp) {
        let mut desired: BTreeMap<String, PostureAttribute> = BTreeMap::new();
        for (key, reported) in attributes {
            // Keys are unique without regard to case in the whole tailnet, so one policy cannot
            // hold both.
            let other = desired
                .keys()
                .find(|other| other.eq_ignore_ascii_case(key.as_str()));
            let value = match other {
                Some(other) => Err(format!("differs from {other} only in case")),
                None if desired.len() == MAX_ATTRIBUTES => {
                    Err(too_many(attributes.len(), MAX_ATTRIBUTES))
                }
                None => desired_value(key, reported, now),
            };
            match value {
                Ok(value) => {
                    desired.insert(key.to_string(), value);
                }
                Err(why) => self.gap(&format!("postureAttributes[{key}]"), &why),
            }
        }
        if !desired.is_empty() {
            self.desired.posture_attributes = Some(desired);
        }
    }

    /// Never declares `authorized: false`: whether the device was denied or still needs its approval is unknown.
    fn setting(&mut self, setting: Setting) {
        let why = match setting.of(self.device).map(|value| value.as_desired()) {
            Some(Ok(SettingValue::Authorized(false))) => {
                "the device is not authorized. Declare authorized: true to authorize it".to_owned()
            }
            Some(Ok(value)) => return convert::declare(&mut self.desired, &value),
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
) -> Result<PostureAttribute, String> {
    AttributeKey::from_str(key.as_str()).map_err(|refused| refused.0)?;
    if reported.expiry.is_some_and(|expiry| expiry <= now) {
        return Err("its expiry has passed, and the tailnet is about to remove it".to_owned());
    }
    let mut desired = PostureAttribute {
        // To the second, as the plan compares expiries.
        expiry: reported.expiry.map(|expiry| format!("{expiry:.0}")),
        ..PostureAttribute::default()
    };
    match &reported.value {
        serde_json::Value::Bool(flag) => desired.boolean = Some(*flag),
        serde_json::Value::String(text) => {
            AttributeString::from_str(text).map_err(|refused| refused.0)?;
            desired.string = Some(text.clone());
        }
        other => match integer(other) {
            Some(number) => desired.integer = Some(number),
            None => {
                return Err(format!(
                    "found {other}, expected a string, boolean, or integer that a policy can hold"
                ));
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

fn too_many(count: usize, max: usize) -> String {
    format!("found {count}, and a policy holds at most {max}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PolicyInput, PolicyKey};

    fn declared(spec: &Spec) -> PolicyInput {
        let key = PolicyKey {
            namespace: "network".to_owned(),
            name: "fra".to_owned(),
        };
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
                let described = describe(&device, None, &[field], Timestamp::UNIX_EPOCH);
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
                assert_eq!(policy.desired.setting(setting), Some(value));
            }
        }
    }
}
