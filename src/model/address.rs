use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use serde::Serialize;

use super::Refused;

/// A Tailscale IPv4 address that a device may have: in 100.64.0.0/10 and not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TailnetIpv4(Ipv4Addr);

/// Ranges that are never assigned (Tailscale's documentation, "Reserved IP addresses"; its source,
/// net/tsaddr): the service range, ChromeOS's VM range, and tshello's address.
const RESERVED: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(100, 100, 0, 0), 24),
    (Ipv4Addr::new(100, 100, 100, 0), 24),
    (Ipv4Addr::new(100, 115, 92, 0), 23),
    (Ipv4Addr::new(100, 101, 102, 103), 32),
];

impl TailnetIpv4 {
    /// An address as the API reports it, valid in a manifest or not.
    #[must_use]
    pub fn reported(addr: Ipv4Addr) -> Self {
        // Not checked: a device may have an address that no manifest may declare.
        Self(addr)
    }

    /// The plain address.
    #[must_use]
    pub fn addr(self) -> Ipv4Addr {
        self.0
    }
}

impl FromStr for TailnetIpv4 {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let addr: Ipv4Addr = text.parse().map_err(|_| {
            Refused(format!(
                "'{text}' is not a valid IPv4 address: write one such as 100.80.0.1"
            ))
        })?;
        let within = |net: (Ipv4Addr, u8)| Ipv4Net::new_assert(net.0, net.1).contains(&addr);
        if !within((Ipv4Addr::new(100, 64, 0, 0), 10)) {
            return Err(Refused(format!(
                "'{text}' is outside of 100.64.0.0/10: write an address in it, such as 100.80.0.1"
            )));
        }
        if let Some((net, bits)) = RESERVED.into_iter().find(|net| within(*net)) {
            return Err(Refused(format!(
                "'{text}' is in {net}/{bits}, which Tailscale reserves: write another address"
            )));
        }
        Ok(Self(addr))
    }
}

impl fmt::Display for TailnetIpv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
