//! A device as the wishes that it meets already.

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

/// A setting, as a manifest names it.
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

/// A device, and what can be said of it in a manifest.
#[derive(Debug, Clone)]
pub(super) struct Description<'a> {
    pub device: &'a Device,
    /// The wishes, without who is meant.
    pub desired: Spec,
    /// What could not be said, each as a sentence.
    pub gaps: Vec<String>,
}

/// The limits of the resource's schema (`src/api/rules/settings.rs`).
const MAX_TAGS: usize = 50;
const MAX_TAG_LENGTH: usize = 128;
const MAX_ROUTES: usize = 256;
const MAX_ATTRIBUTES: usize = 64;

/// Describes a device by wishes that it meets at this moment. `attributes` is `None` where they
/// have not been read: then nothing is said of them.
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
    /// Who it is, in one line.
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

    /// A device of a user has none, and there is no wish for that.
    fn tags(&mut self) {
        let tags = &self.device.tags;
        let odd = tags.iter().find(|tag| {
            Tag::from_str(tag.as_str()).is_err() || tag.as_str().len() > MAX_TAG_LENGTH
        });
        if let Some(odd) = odd {
            let why = format!("a policy cannot name '{odd}', so it cannot own the list");
            self.gap("tags", &why);
        } else if tags.len() > MAX_TAGS {
            self.gap("tags", &too_many(tags.len(), MAX_TAGS));
        } else if !tags.is_empty() {
            self.desired.tags = Some(tags.iter().map(ToString::to_string).collect());
        }
    }

    /// Where a device neither has routes nor offers any, nothing has been decided about them.
    fn routes(&mut self) {
        let subnets = |routes: &RouteSet| -> Vec<String> {
            let subnets = routes.iter().filter(|route| !route.is_exit_node());
            subnets.map(ToString::to_string).collect()
        };
        let Some(enabled) = &self.device.enabled_routes else {
            self.gap("enabledRoutes", "not told by the API (devices:routes:read)");
            return;
        };
        let enabled = subnets(enabled);
        let offered = self.device.advertised_routes.as_ref();
        if enabled.len() > MAX_ROUTES {
            self.gap("enabledRoutes", &too_many(enabled.len(), MAX_ROUTES));
        } else if !enabled.is_empty() || offered.is_some_and(|offered| !subnets(offered).is_empty())
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
            self.gap("exitNode", "not told by the API (devices:routes:read)");
            return;
        }
        let enabled = exit(&self.device.enabled_routes);
        if enabled == Route::exit_node() {
            self.desired.exit_node = Some(true);
        } else if let Some(half) = enabled.first() {
            let why = format!("half an exit node: {half} is enabled, the other route is not");
            self.gap("exitNode", &why);
        } else if !exit(&self.device.advertised_routes).is_empty() {
            self.desired.exit_node = Some(false);
        }
    }

    fn attributes(&mut self, attributes: &Attributes, now: Timestamp) {
        let mut desired: BTreeMap<String, PostureAttribute> = BTreeMap::new();
        for (key, reported) in attributes {
            let twin = desired
                .keys()
                .find(|kept| kept.eq_ignore_ascii_case(key.as_str()));
            let value = match twin {
                Some(twin) => Err(format!("differs from {twin} only in case")),
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

    /// A device that waits for approval, or was shut out, is in no state to keep.
    fn authorized(&mut self) {
        if self.device.authorized {
            self.desired.authorized = Some(true);
        } else {
            let why = "the device is not authorized now; whether it shall be is for you to say";
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
        return Err("its expiry has passed: the tailnet is about to remove it".to_owned());
    }
    let mut desired = PostureAttribute {
        // By the second, as expiries are compared.
        expiry: reported.expiry.map(|expiry| format!("{expiry:.0}")),
        ..PostureAttribute::default()
    };
    match &reported.value {
        serde_json::Value::Bool(flag) => desired.boolean = Some(*flag),
        serde_json::Value::String(text) => {
            AttributeString::from_str(text).map_err(|refused| refused.0)?;
            desired.string = Some(text.clone());
        }
        other => match whole_number(other) {
            Some(number) => desired.integer = Some(number),
            None => {
                return Err(format!(
                    "{other} is no string, boolean or whole number that a policy can hold"
                ));
            }
        },
    }
    Ok(desired)
}

/// JSON has one kind of number: 3.0 is 3.
fn whole_number(value: &serde_json::Value) -> Option<i64> {
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

fn too_many(count: usize, most: usize) -> String {
    format!("there are {count}, and a policy holds at most {most}")
}
