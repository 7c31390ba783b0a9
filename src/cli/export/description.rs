//! A device as an export describes it, wherever that was read.

use std::str::FromStr;

use crate::{
    api::{DeviceReference, TailscaleDevicePolicySpec as Spec},
    convert,
    model::{ListSetting, ListValue, Route, RouteSet, Tag, TagSet},
};

/// The limits of the resource's schema (`src/api/rules/settings.rs`).
const MAX_TAGS: usize = 50;
const MAX_TAG_LENGTH: usize = 128;
const MAX_ROUTES: usize = 256;

/// A device, and the settings of it that a manifest can declare.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub id: Id,
    /// The preferred name of its policy.
    pub label: String,
    /// Its identity, in one line.
    pub title: String,
    pub facts: Facts,
    /// The desired settings, without the `device` that they are for.
    pub desired: Spec,
    /// The settings that no manifest can declare, and why.
    pub gaps: Vec<String>,
}

/// How a policy names a device. Names and hostnames change, so neither is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    /// By the preferred id.
    Node(String),
    /// By the older numeric id, which no expression can name.
    Legacy(String),
}

/// What a device is, as opposed to how it is set: this decides which file describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub tags: TagSet,
    /// Its owner, if it has no tags; may be empty.
    pub user: String,
    pub os: String,
    /// The resource of Terraform that sets it; may be empty.
    pub resource: String,
    /// A field of it cannot be read, so that it shares neither a file nor a policy.
    pub is_uncertain: bool,
}

impl Description {
    pub fn gap(&mut self, setting: &str, why: &str) {
        self.gaps.push(format!("{setting}: {why}"));
    }

    fn declare_list(&mut self, value: &ListValue) {
        convert::declare_list(&mut self.desired, value);
    }

    /// A device of a user has no tags, and a policy cannot declare that.
    pub fn declare_tags(&mut self, tags: &TagSet) {
        let invalid = tags.iter().find(|tag| {
            // The API may report a tag that no policy can declare.
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

    /// Declares the subnet routes among the enabled ones; none only if `or_none`.
    pub fn declare_routes(&mut self, enabled: &RouteSet, or_none: bool) {
        let enabled = ListSetting::EnabledRoutes.among(enabled);
        if enabled.len() > MAX_ROUTES {
            self.gap("enabledRoutes", &too_many(enabled.len(), MAX_ROUTES));
        } else if !enabled.is_empty() || or_none {
            self.declare_list(&ListValue::EnabledRoutes(enabled));
        }
    }

    /// Declares whether both routes of an exit node are enabled; that none is only if `or_none`.
    pub fn declare_exit_node(&mut self, enabled: &RouteSet, or_none: bool) {
        let enabled = ListSetting::ExitNode.among(enabled);
        // Half of an exit node is no state that a policy can declare.
        if enabled == Route::exit_node() {
            self.declare_list(&ListValue::exit_node(true));
        } else if let Some(half) = enabled.first() {
            let why = format!("only {half} of the two routes of an exit node is enabled");
            self.gap("exitNode", &why);
        } else if or_none {
            self.declare_list(&ListValue::exit_node(false));
        }
    }
}

impl Id {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Node(id) | Self::Legacy(id) => id,
        }
    }

    /// The `device` of a policy for this device alone.
    pub fn reference(&self) -> DeviceReference {
        let id = Some(self.as_str().to_owned());
        let none = DeviceReference::default();
        match self {
            Self::Node(_) => DeviceReference {
                node_id: id,
                ..none
            },
            Self::Legacy(_) => DeviceReference { id, ..none },
        }
    }
}

/// Why a list is left out.
pub(super) fn too_many(count: usize, max: usize) -> String {
    format!("found {count}, and a policy holds at most {max}")
}
