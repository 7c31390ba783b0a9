use std::fmt;

use jiff::Timestamp;

use super::{Change, Disruption, ListChange};
use crate::model::{Device, RouteSet, SettingValue, TagSet, brief};

/// The disruption that a change causes, held or not, for shown plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Impact {
    /// The device is taken out of the tailnet.
    Deauthorized,
    /// The device loses these tags, and the access that they give.
    TagsTaken(TagSet),
    /// The first tag takes the device from its user, and no request gives it back.
    TakenFromUser(String),
    /// The key has expired: the device must log in again.
    KeyExpired,
    /// The device leaves the tailnet, and only its own user can bring it back.
    Deleted,
    /// The device loses these routes, and the networks behind them.
    RoutesTaken(RouteSet),
    /// The device is no longer an exit node.
    ExitNodeTaken,
    /// The new address breaks connections to the old one.
    Ipv4Changed,
}

impl Impact {
    /// The disruption that a change causes, if any.
    #[must_use]
    pub fn of(change: &Change, device: &Device, now: Timestamp) -> Option<Self> {
        match change {
            Change::Setting { before, after } => {
                Self::of_setting(before.as_ref(), after, device, now)
            }
            Change::List(change) => Self::of_list(change, device),
            Change::ExpireKey { .. } => Some(Self::KeyExpired),
            Change::Delete { .. } => Some(Self::Deleted),
            Change::Attribute { .. } | Change::NotCompared { .. } => None,
        }
    }

    /// The same impact on any device.
    #[must_use]
    pub fn of_any_device(self) -> Self {
        match self {
            Self::TakenFromUser(_) => Self::TakenFromUser(String::new()),
            other => other,
        }
    }

    /// What a policy must allow before a setting is changed with this impact, if anything: it can cut the device
    /// off.
    pub(in crate::plan) const fn disruption(&self) -> Option<Disruption> {
        match self {
            Self::Deauthorized => Some(Disruption::Deauthorize),
            Self::KeyExpired => Some(Disruption::ExpiredKey),
            Self::TakenFromUser(_) => Some(Disruption::FirstTag),
            // The device stays reachable: another address breaks connections, and no access. A list shows what
            // it lacks, and a deletion has conditions of its own.
            Self::Ipv4Changed
            | Self::TagsTaken(_)
            | Self::RoutesTaken(_)
            | Self::ExitNodeTaken
            | Self::Deleted => None,
        }
    }

    fn of_list(change: &ListChange, device: &Device) -> Option<Self> {
        match change {
            // The owner counts before the access: the API gives a tagged device no user back.
            ListChange::Tags { before, .. } if before.is_empty() => {
                Some(Self::TakenFromUser(device.user.clone()))
            }
            ListChange::Tags { before, after } => {
                let taken: TagSet = before.difference(after).cloned().collect();
                (!taken.is_empty()).then_some(Self::TagsTaken(taken))
            }
            ListChange::EnabledRoutes { before, after } => {
                let taken: RouteSet = before.difference(after).copied().collect();
                (!taken.is_empty()).then_some(Self::RoutesTaken(taken))
            }
            ListChange::ExitNode { after, .. } => after.is_empty().then_some(Self::ExitNodeTaken),
        }
    }

    /// The impact of a setting. Without a wildcard, so that each new setting is decided here.
    pub(in crate::plan) fn of_setting(
        before: Option<&SettingValue>,
        after: &SettingValue,
        device: &Device,
        now: Timestamp,
    ) -> Option<Self> {
        match after {
            SettingValue::Authorized(authorized) => (!authorized).then_some(Self::Deauthorized),
            SettingValue::KeyExpiryDisabled(disabled) => {
                let has_expired = device.expires.is_some_and(|expires| expires <= now);
                // While key expiry is disabled, an expiry in the past does nothing.
                (!disabled && has_expired).then_some(Self::KeyExpired)
            }
            // Nothing connects to a device that has no address.
            SettingValue::Ipv4(_) => before.is_some().then_some(Self::Ipv4Changed),
            SettingValue::Name(_) => None,
        }
    }
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deauthorized => f.write_str("takes the device out of the tailnet"),
            Self::TagsTaken(tags) => write!(f, "takes away {}", joined(tags)),
            // The API names the user of a device, but not in a form that can be read.
            Self::TakenFromUser(user) if user.is_empty() => {
                f.write_str("takes the device from its user for good")
            }
            Self::TakenFromUser(user) => write!(f, "takes the device from {user} for good"),
            Self::KeyExpired => f.write_str("cuts the device off until someone logs in to it"),
            Self::RoutesTaken(routes) => write!(f, "withdraws {}", joined(routes)),
            Self::ExitNodeTaken => f.write_str("is no longer an exit node"),
            Self::Deleted => f.write_str("deletes the device for good"),
            Self::Ipv4Changed => f.write_str("breaks connections to the old address"),
        }
    }
}

fn joined<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    brief(&items).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Route, Tag};

    fn device() -> Device {
        Device {
            name: "fra.tail1.ts.net".to_owned(),
            hostname: "fra".to_owned(),
            user: "amelie@example.com".to_owned(),
            os: "linux".to_owned(),
            key_expiry_disabled: true,
            expires: Some(Timestamp::UNIX_EPOCH),
            ..Device::plain("n1CNTRL".parse().unwrap())
        }
    }

    fn reported(change: &Change) -> String {
        let now = Timestamp::UNIX_EPOCH;
        Impact::of(change, &device(), now).map_or_else(String::new, |impact| impact.to_string())
    }

    #[test]
    fn only_disruptive_changes_have_an_impact() {
        let tags = |tags: &[&str]| -> TagSet {
            let tags = tags.iter().map(|tag| tag.parse::<Tag>().unwrap());
            tags.collect()
        };
        let retag = |before: &[&str], after: &[&str]| {
            reported(&Change::List(ListChange::Tags {
                before: tags(before),
                after: tags(after),
            }))
        };
        assert_eq!(
            retag(&["tag:a", "tag:b"], &["tag:b", "tag:c"]),
            "takes away tag:a"
        );
        assert_eq!(retag(&["tag:a"], &["tag:a", "tag:b"]), "");
        let first = "takes the device from amelie@example.com for good";
        assert_eq!(retag(&[], &["tag:a"]), first);
        let unknown = Impact::TakenFromUser(String::new()).to_string();
        assert_eq!(unknown, "takes the device from its user for good");

        let routes = |routes: &[&str]| -> RouteSet {
            let routes = routes.iter().map(|route| route.parse::<Route>().unwrap());
            routes.collect()
        };
        let reroute = |before: &[&str], after: &[&str]| {
            reported(&Change::List(ListChange::EnabledRoutes {
                before: routes(before),
                after: routes(after),
            }))
        };
        let withdrawn = "withdraws 10.0.0.0/16, fd00::/8";
        assert_eq!(
            reroute(&["10.0.0.0/16", "fd00::/8"], &["10.1.0.0/16"]),
            withdrawn
        );
        assert_eq!(reroute(&[], &["10.1.0.0/16"]), "");

        let exit = |before: RouteSet, after: RouteSet| {
            reported(&Change::List(ListChange::ExitNode { before, after }))
        };
        let (both, none) = (Route::exit_node(), RouteSet::new());
        assert_eq!(
            exit(both.clone(), none.clone()),
            "is no longer an exit node"
        );
        assert_eq!(exit(none, both), "");

        let authorize = |after: bool| {
            reported(&Change::Setting {
                before: Some(SettingValue::Authorized(!after)),
                after: SettingValue::Authorized(after),
            })
        };
        assert_eq!(authorize(false), "takes the device out of the tailnet");
        assert_eq!(authorize(true), "");

        let key = |after: bool| {
            reported(&Change::Setting {
                before: Some(SettingValue::KeyExpiryDisabled(!after)),
                after: SettingValue::KeyExpiryDisabled(after),
            })
        };
        assert_eq!(
            key(false),
            "cuts the device off until someone logs in to it"
        );
        assert_eq!(key(true), "");

        let address = |before: Option<&str>| {
            let ipv4 = |addr: &str| SettingValue::Ipv4(addr.parse().unwrap());
            reported(&Change::Setting {
                before: before.map(ipv4),
                after: ipv4("100.80.0.1"),
            })
        };
        assert_eq!(
            address(Some("100.80.0.2")),
            "breaks connections to the old address"
        );
        assert_eq!(address(None), "");
    }
}
