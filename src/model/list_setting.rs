//! The table of the settings that are entries of a list: one request replaces the whole list.
//!
//! A new setting of that kind is a variant of each enum here. The compiler, or a test that walks
//! [`ListSetting::ALL`], then names every other place that must know it.

use std::fmt;

use super::{Device, PolicyField, Route, RouteSet, Step, TagSet, brief};

/// A setting that is entries of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListSetting {
    /// The tags.
    Tags,
    /// The subnet routes: those of the enabled routes that are not an exit node's.
    EnabledRoutes,
    /// The routes of an exit node: both or none of them.
    ExitNode,
}

/// The entries of such a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListValue {
    /// All tags.
    Tags(TagSet),
    /// The subnet routes.
    EnabledRoutes(RouteSet),
    /// The routes of an exit node. A device can have one of the two; a policy declares both or none.
    ExitNode(RouteSet),
}

impl ListSetting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tags, Self::EnabledRoutes, Self::ExitNode];

    /// The setting that a route belongs to.
    #[must_use]
    pub fn of_route(route: &Route) -> Self {
        if route.is_exit_node() {
            Self::ExitNode
        } else {
            Self::EnabledRoutes
        }
    }

    /// The field of a policy's spec that declares it.
    #[must_use]
    pub fn field(self) -> PolicyField {
        match self {
            Self::Tags => PolicyField::Tags,
            Self::EnabledRoutes => PolicyField::EnabledRoutes,
            Self::ExitNode => PolicyField::ExitNode,
        }
    }

    /// Whether its entries are routes, which the list of all devices need not report.
    #[must_use]
    pub fn is_of_routes(self) -> bool {
        match self {
            Self::Tags => false,
            Self::EnabledRoutes | Self::ExitNode => true,
        }
    }

    /// Whether policies own its entries one by one, so that not every owner may see all of them.
    #[must_use]
    pub fn is_owned_by_entry(self) -> bool {
        match self {
            Self::Tags | Self::EnabledRoutes => true,
            // Both routes or none: there is nothing to share.
            Self::ExitNode => false,
        }
    }

    /// When it is sent.
    #[must_use]
    pub fn step(self) -> Step {
        match self {
            Self::Tags => Step::Tags,
            // One request writes both kinds.
            Self::EnabledRoutes | Self::ExitNode => Step::Routes,
        }
    }

    /// The reason of the Event that reports that it was changed.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Self::Tags => "TagsChanged",
            Self::EnabledRoutes => "RoutesChanged",
            Self::ExitNode => "ExitNodeChanged",
        }
    }

    /// The observed entries; `None` if they were not reported.
    #[must_use]
    pub fn of(self, device: &Device) -> Option<ListValue> {
        match self {
            // The API omits the tags of a device that has none, so absent is empty here.
            Self::Tags => Some(ListValue::Tags(device.tags.clone())),
            Self::EnabledRoutes => {
                let enabled = device.enabled_routes.as_ref()?;
                Some(ListValue::EnabledRoutes(self.among(enabled)))
            }
            Self::ExitNode => {
                let enabled = device.enabled_routes.as_ref()?;
                Some(ListValue::ExitNode(self.among(enabled)))
            }
        }
    }

    /// Those of a device's routes that belong to the setting.
    #[must_use]
    pub fn among(self, routes: &RouteSet) -> RouteSet {
        let own = routes.iter().filter(|route| Self::of_route(route) == self);
        own.copied().collect()
    }

    /// No entries.
    #[must_use]
    pub fn empty(self) -> ListValue {
        match self {
            Self::Tags => ListValue::Tags(TagSet::new()),
            Self::EnabledRoutes => ListValue::EnabledRoutes(RouteSet::new()),
            Self::ExitNode => ListValue::ExitNode(RouteSet::new()),
        }
    }
}

#[cfg(test)]
impl ListSetting {
    /// Two values, the first of which a new device does not have.
    pub(crate) fn examples(self) -> [ListValue; 2] {
        match self {
            Self::Tags => [&["tag:a"][..], &["tag:a", "tag:b"]].map(|tags| {
                let tags = tags.iter().map(|tag| tag.parse().unwrap());
                ListValue::Tags(tags.collect())
            }),
            Self::EnabledRoutes => [&["10.0.0.0/16"][..], &["10.1.0.0/16"]].map(|routes| {
                let routes = routes.iter().map(|route| route.parse().unwrap());
                ListValue::EnabledRoutes(routes.collect())
            }),
            Self::ExitNode => [true, false].map(ListValue::exit_node),
        }
    }
}

impl ListValue {
    /// What a manifest declares by `exitNode`.
    #[must_use]
    pub fn exit_node(declared: bool) -> Self {
        Self::ExitNode(if declared {
            Route::exit_node()
        } else {
            RouteSet::new()
        })
    }

    /// The setting that these are entries of.
    #[must_use]
    pub fn setting(&self) -> ListSetting {
        match self {
            Self::Tags(_) => ListSetting::Tags,
            Self::EnabledRoutes(_) => ListSetting::EnabledRoutes,
            Self::ExitNode(_) => ListSetting::ExitNode,
        }
    }

    /// The entries as a manifest writes them.
    #[must_use]
    pub fn entries(&self) -> Vec<String> {
        match self {
            Self::Tags(tags) => tags.iter().map(ToString::to_string).collect(),
            Self::EnabledRoutes(routes) | Self::ExitNode(routes) => {
                routes.iter().map(ToString::to_string).collect()
            }
        }
    }

    /// Puts its routes in the place of those of the same setting.
    pub fn replace_in(&self, all: &mut RouteSet) {
        match self {
            Self::Tags(_) => {}
            Self::EnabledRoutes(routes) | Self::ExitNode(routes) => {
                // One request writes both kinds of routes: without the other kind it would withdraw those.
                all.retain(|route| ListSetting::of_route(route) != self.setting());
                all.extend(routes);
            }
        }
    }
}

/// The entries, for people. `{:#}` shortens a long list.
impl fmt::Display for ListValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries = self.entries();
        if entries.is_empty() {
            return f.write_str("none");
        }
        if f.alternate() {
            entries = brief(&entries);
        }
        f.write_str(&entries.join(","))
    }
}
