//! A change of a setting that is entries of a list.

use std::collections::BTreeSet;

use crate::model::{ListSetting, ListValue, RouteSet, TagSet};

/// The observed and the desired entries of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListChange {
    /// All its tags.
    Tags {
        /// Observed.
        before: TagSet,
        /// Desired.
        after: TagSet,
    },
    /// Its subnet routes, without those of an exit node.
    EnabledRoutes {
        /// Observed.
        before: RouteSet,
        /// Desired.
        after: RouteSet,
    },
    /// Its exit-node routes.
    ExitNode {
        /// Observed; only one of the two routes is possible.
        before: RouteSet,
        /// Desired: both or none.
        after: RouteSet,
    },
}

impl ListChange {
    /// The changed setting.
    #[must_use]
    pub fn setting(&self) -> ListSetting {
        match self {
            Self::Tags { .. } => ListSetting::Tags,
            Self::EnabledRoutes { .. } => ListSetting::EnabledRoutes,
            Self::ExitNode { .. } => ListSetting::ExitNode,
        }
    }

    /// The observed entries.
    #[must_use]
    pub fn before(&self) -> ListValue {
        match self {
            Self::Tags { before, .. } => ListValue::Tags(before.clone()),
            Self::EnabledRoutes { before, .. } => ListValue::EnabledRoutes(before.clone()),
            Self::ExitNode { before, .. } => ListValue::ExitNode(before.clone()),
        }
    }

    /// Whether entries are as the change makes them: with all that it adds, and with none that it removes. Other
    /// entries can belong to others.
    #[must_use]
    pub fn is_made_in(&self, now: &ListValue) -> bool {
        fn is_made<T: Ord>(before: &BTreeSet<T>, after: &BTreeSet<T>, now: &BTreeSet<T>) -> bool {
            after.difference(before).all(|added| now.contains(added))
                && before
                    .difference(after)
                    .all(|removed| !now.contains(removed))
        }
        match (self, now) {
            (Self::Tags { before, after }, ListValue::Tags(now)) => is_made(before, after, now),
            (Self::EnabledRoutes { before, after }, ListValue::EnabledRoutes(now))
            | (Self::ExitNode { before, after }, ListValue::ExitNode(now)) => {
                is_made(before, after, now)
            }
            _ => false,
        }
    }

    /// The desired entries.
    #[must_use]
    pub fn after(&self) -> ListValue {
        match self {
            Self::Tags { after, .. } => ListValue::Tags(after.clone()),
            Self::EnabledRoutes { after, .. } => ListValue::EnabledRoutes(after.clone()),
            Self::ExitNode { after, .. } => ListValue::ExitNode(after.clone()),
        }
    }
}
