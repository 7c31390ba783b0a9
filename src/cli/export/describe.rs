//! Describes a device by desired settings that it already has.

use std::{collections::BTreeMap, str::FromStr};

use clap::ValueEnum;
use jiff::Timestamp;

use crate::{
    api::{KeyExpiry, PostureAttribute, TailscaleDevicePolicySpec as Spec},
    model::{
        AttributeKey, AttributeString, Attributes, Device, DeviceLabel, ReportedAttribute, Route,
        RouteSet, SafeInteger, Tag, TailnetIpv4,
    },
    plan::Owner,
};

/// A setting, named as in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(super) enum Setting {
    Tags,
    KeyExpiry,
    EnabledRoutes,
    ExitNode,
    PostureAttributes,
    Authorized,
    Name,
    Ipv4,
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

/// The limits of the resource's schema (`src/api/rules/settings.rs`).
const MAX_TAGS: usize = 50;
const MAX_TAG_LENGTH: usize = 128;
const MAX_ROUTES: usize = 256;
const MAX_ATTRIBUTES: usize = 64;

/// Describes a device by the settings that it has now. `attributes` is `None` if they were not read:
/// then the description leaves them out.
pub(super) fn describe<'a>(
    device: &'a Device,
    attributes: Option<&Attributes>,
    settings: &[Setting],
    now: Timestamp,
) -> Description<'a> {
    let mut description = Description {
        device,
        desired: Spec::default(),
        gaps: Vec::new(),
    };
    for setting in settings {
        match setting {
            Setting::Tags => description.tags(),
            Setting::KeyExpiry => {
                description.desired.key_expiry = Some(if device.key_expiry_disabled {
                    KeyExpiry::Disabled
                } else {
                    KeyExpiry::Enabled
                });
            }
            Setting::EnabledRoutes => description.routes(),
            Setting::ExitNode => description.exit_node(),
            Setting::PostureAttributes => {
                if let Some(attributes) = attributes {
                    description.attributes(attributes, now);
                }
            }
            Setting::Authorized => description.authorized(),
            Setting::Name => description.name(),
            Setting::Ipv4 => description.ipv4(),
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

    /// A device of a user has no tags, and a policy cannot declare that.
    fn tags(&mut self) {
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
            self.desired.tags = Some(tags.iter().map(ToString::to_string).collect());
        }
    }

    /// Leaves routes out if the device neither has nor advertises any: nobody has decided about them.
    fn routes(&mut self) {
        let subnets = |routes: &RouteSet| -> Vec<String> {
            let subnets = routes.iter().filter(|route| !route.is_exit_node());
            subnets.map(ToString::to_string).collect()
        };
        let Some(enabled) = &self.device.enabled_routes else {
            self.gap(
                "enabledRoutes",
                "the API does not report routes. Give the credential the scope devices:routes:read",
            );
            return;
        };
        let enabled = subnets(enabled);
        let advertised = self.device.advertised_routes.as_ref();
        if enabled.len() > MAX_ROUTES {
            self.gap("enabledRoutes", &too_many(enabled.len(), MAX_ROUTES));
        } else if !enabled.is_empty()
            || advertised.is_some_and(|advertised| !subnets(advertised).is_empty())
        {
            self.desired.enabled_routes = Some(enabled);
        }
    }

    fn exit_node(&mut self) {
        let exit = |routes: &Option<RouteSet>| -> RouteSet {
            let routes = routes.iter().flatten();
            routes
                .filter(|route| route.is_exit_node())
                .copied()
                .collect()
        };
        if self.device.enabled_routes.is_none() {
            self.gap(
                "exitNode",
                "the API does not report routes. Give the credential the scope devices:routes:read",
            );
            return;
        }
        let enabled = exit(&self.device.enabled_routes);
        if enabled == Route::exit_node() {
            self.desired.exit_node = Some(true);
        } else if let Some(half) = enabled.first() {
            let why = format!("only {half} of the two routes of an exit node is enabled");
            self.gap("exitNode", &why);
        } else if !exit(&self.device.advertised_routes).is_empty() {
            self.desired.exit_node = Some(false);
        }
    }

    fn attributes(&mut self, attributes: &Attributes, now: Timestamp) {
        let mut desired: BTreeMap<String, PostureAttribute> = BTreeMap::new();
        for (key, reported) in attributes {
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
    fn authorized(&mut self) {
        if self.device.authorized {
            self.desired.authorized = Some(true);
        } else {
            let why = "the device is not authorized. Declare authorized: true to authorize it";
            self.gap("authorized", why);
        }
    }

    fn name(&mut self) {
        match DeviceLabel::from_str(self.device.label().as_str()) {
            Ok(label) => self.desired.name = Some(label.to_string()),
            Err(refused) => self.gap("name", &refused.0),
        }
    }

    fn ipv4(&mut self) {
        let Some(ipv4) = self.device.ipv4 else {
            return self.gap("ipv4", "the device has none");
        };
        match TailnetIpv4::from_str(&ipv4.to_string()) {
            Ok(ipv4) => self.desired.ipv4 = Some(ipv4.to_string()),
            Err(refused) => self.gap("ipv4", &refused.0),
        }
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
