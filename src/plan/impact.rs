use std::fmt;

use jiff::Timestamp;

use super::Change;
use crate::model::{Device, RouteSet, TagSet};

/// What people may lose by a change, held or not: to be said where a plan is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Impact {
    /// The device is taken out of the tailnet.
    Deauthorized,
    /// These tags go, and what is permitted by them.
    TagsTaken(TagSet),
    /// The first tag takes the device from its user, and no call gives it back.
    TakenFromUser(String),
    /// The key's time is past: the device must log in again.
    KeyExpired,
    /// The device leaves the tailnet, and nothing brings it back but its own user.
    Deleted,
    /// These routes go, and the networks behind them.
    RoutesTaken(RouteSet),
    /// It is an exit node no more.
    ExitNodeTaken,
    /// Another address breaks the connections of the old one.
    Ipv4Changed,
}

impl Impact {
    /// What a change would take, if anything.
    #[must_use]
    pub fn of(change: &Change, device: &Device, now: Timestamp) -> Option<Self> {
        match change {
            Change::Authorized { after: false, .. } => Some(Self::Deauthorized),
            Change::Tags { before, .. } if before.is_empty() => {
                Some(Self::TakenFromUser(device.user.clone()))
            }
            Change::Tags { before, after } => {
                let taken: TagSet = before.difference(after).cloned().collect();
                (!taken.is_empty()).then_some(Self::TagsTaken(taken))
            }
            Change::KeyExpiryDisabled { after: false, .. } => device
                .expires
                .is_some_and(|expires| expires <= now)
                .then_some(Self::KeyExpired),
            Change::EnabledRoutes { before, after } => {
                let taken: RouteSet = before.difference(after).copied().collect();
                (!taken.is_empty()).then_some(Self::RoutesTaken(taken))
            }
            Change::ExitNode { after: false, .. } => Some(Self::ExitNodeTaken),
            Change::Ipv4 {
                before: Some(_), ..
            } => Some(Self::Ipv4Changed),
            Change::ExpireKey { .. } => Some(Self::KeyExpired),
            Change::Delete { .. } => Some(Self::Deleted),
            _ => None,
        }
    }
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deauthorized => f.write_str("takes the device out of the tailnet"),
            Self::TagsTaken(tags) => write!(f, "takes away {}", joined(tags)),
            Self::TakenFromUser(user) => write!(f, "takes the device from {user} for good"),
            Self::KeyExpired => f.write_str("cuts the device off until somebody logs in on it"),
            Self::RoutesTaken(routes) => write!(f, "withdraws {}", joined(routes)),
            Self::ExitNodeTaken => f.write_str("is an exit node no more"),
            Self::Deleted => f.write_str("deletes the device for good"),
            Self::Ipv4Changed => f.write_str("breaks connections to the old address"),
        }
    }
}

fn joined<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Route, Tag};

    fn device() -> Device {
        Device {
            node_id: "n1CNTRL".parse().unwrap(),
            legacy_id: String::new(),
            name: "fra.tail1.ts.net".to_owned(),
            hostname: "fra".to_owned(),
            user: "amelie@example.com".to_owned(),
            tags: TagSet::new(),
            ipv4: None,
            os: "linux".to_owned(),
            client_version: String::new(),
            update_available: false,
            ephemeral: false,
            created: None,
            authorized: true,
            external: false,
            key_expiry_disabled: true,
            expires: Some(Timestamp::UNIX_EPOCH),
            connected: None,
            last_seen: None,
            enabled_routes: None,
            advertised_routes: None,
        }
    }

    fn reported(change: &Change) -> String {
        let now = Timestamp::UNIX_EPOCH;
        Impact::of(change, &device(), now).map_or_else(String::new, |impact| impact.to_string())
    }

    #[test]
    fn what_people_may_lose_is_said_and_nothing_else() {
        let tags = |tags: &[&str]| -> TagSet {
            let tags = tags.iter().map(|tag| tag.parse::<Tag>().unwrap());
            tags.collect()
        };
        let retag = |before: &[&str], after: &[&str]| {
            reported(&Change::Tags {
                before: tags(before),
                after: tags(after),
            })
        };
        assert_eq!(
            retag(&["tag:a", "tag:b"], &["tag:b", "tag:c"]),
            "takes away tag:a"
        );
        assert_eq!(retag(&["tag:a"], &["tag:a", "tag:b"]), "");
        let first = "takes the device from amelie@example.com for good";
        assert_eq!(retag(&[], &["tag:a"]), first);

        let routes = |routes: &[&str]| -> RouteSet {
            let routes = routes.iter().map(|route| route.parse::<Route>().unwrap());
            routes.collect()
        };
        let reroute = |before: &[&str], after: &[&str]| {
            reported(&Change::EnabledRoutes {
                before: routes(before),
                after: routes(after),
            })
        };
        let withdrawn = "withdraws 10.0.0.0/16, fd00::/8";
        assert_eq!(
            reroute(&["10.0.0.0/16", "fd00::/8"], &["10.1.0.0/16"]),
            withdrawn
        );
        assert_eq!(reroute(&[], &["10.1.0.0/16"]), "");

        let exit = |before: RouteSet, after| reported(&Change::ExitNode { before, after });
        assert_eq!(exit(Route::exit_node(), false), "is an exit node no more");
        assert_eq!(exit(RouteSet::new(), true), "");

        let authorize = |after: bool| {
            reported(&Change::Authorized {
                before: !after,
                after,
            })
        };
        assert_eq!(authorize(false), "takes the device out of the tailnet");
        assert_eq!(authorize(true), "");

        let key = |after: bool| {
            reported(&Change::KeyExpiryDisabled {
                before: !after,
                after,
            })
        };
        assert_eq!(
            key(false),
            "cuts the device off until somebody logs in on it"
        );
        assert_eq!(key(true), "");

        let address = |before: Option<&str>| {
            reported(&Change::Ipv4 {
                before: before.map(|addr| addr.parse().unwrap()),
                after: "100.80.0.1".parse().unwrap(),
            })
        };
        assert_eq!(
            address(Some("100.80.0.2")),
            "breaks connections to the old address"
        );
        assert_eq!(address(None), "");
    }
}
