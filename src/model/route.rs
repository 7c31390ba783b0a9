use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::Serialize;

use super::Refused;

/// A subnet route: a network without host bits. Compared by value: `fd00:0::/8` is `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route(IpNet);

/// Routes compare as a set. Sorted by value: IPv4 first, then by address.
pub type RouteSet = BTreeSet<Route>;

impl Route {
    /// The two routes that make a device an exit node: `0.0.0.0/0` and `::/0`.
    #[must_use]
    pub fn exit_node() -> RouteSet {
        // Both or none: clients use an exit node for both families.
        let unspecified = [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])];
        unspecified
            .into_iter()
            .map(|ip| Self(IpNet::new_assert(ip, 0)))
            .collect()
    }

    /// Whether this is one of the two routes of an exit node.
    #[must_use]
    pub fn is_exit_node(&self) -> bool {
        self.0.prefix_len() == 0
    }

    /// A network whose routes a guardrail allows: like a declared route, but `0.0.0.0/0` and `::/0` mean all
    /// routes.
    pub fn network(text: &str) -> Result<Self, Refused> {
        match text.parse::<IpNet>() {
            // `FromStr` refuses these two, which only a guardrail may name.
            Ok(net) if net.prefix_len() == 0 && net == net.trunc() => Ok(Self(net)),
            _ => text.parse(),
        }
    }

    /// Whether this network contains the other one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // Never across families: 0.0.0.0/0 contains no IPv6 route.
        self.0.contains(&other.0)
    }

    /// A route as the API reports it. Host bits, if any, are masked: it is the same network.
    pub fn reported(text: &str) -> Result<Self, Refused> {
        text.parse::<IpNet>()
            // Whether the API masks what it stores is not documented.
            .map(|net| Self(net.trunc()))
            .map_err(|_| Refused(format!("'{text}' is not a valid CIDR")))
    }
}

impl FromStr for Route {
    type Err = Refused;

    /// Refuses host bits instead of rewriting them, and the exit-node routes, which are the field `exitNode`.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let net: IpNet = text.parse().map_err(|_| {
            Refused(format!(
                "'{text}' is not a valid CIDR: write a network and its prefix length, such as 10.0.0.0/16"
            ))
        })?;
        if net != net.trunc() {
            return Err(Refused(format!(
                "'{text}' has host bits: write {}",
                net.trunc()
            )));
        }
        if net.prefix_len() == 0 {
            return Err(Refused(format!(
                "'{text}' is an exit-node route: write exitNode: true instead"
            )));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
