//! The IPv4 address of a device.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::call::Call;
use crate::simulator::{
    body::{Body, missing},
    response::{Answer, Refusal, Reply},
    world::{World, ipv6_of},
};

/// The address pool of the tailnet.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Never given to a device: Tailscale's own services, and `ChromeOS`'s VMs.
const RESERVED: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 115, 92, 0), 23),
    // tshello
    Ipv4Net::new_assert(Ipv4Addr::new(100, 101, 102, 103), 32),
];

/// `POST /device/{device}/ip`
pub(super) fn set(world: &mut World, call: &Call) -> Reply {
    // First: an unknown device is 404, whatever the body.
    let own = world.own_record(call.id())?.device.ipv4();
    let mut body = Body::parse(call.body, &["ipv4"])?;
    let text = body.string("ipv4")?.ok_or_else(|| missing("ipv4"))?;
    // Measured live: the API calls an invalid address malformed JSON.
    let ipv4: Ipv4Addr = text.parse().map_err(|_| {
        Refusal::bad_request(format!("malformed JSON: unable to parse IP \"{text}\""))
    })?;
    let switches = &world.switches;
    // Before the pool, which contains the reserved ranges.
    if RESERVED.iter().any(|range| range.contains(&ipv4)) {
        return Err(switches.reserved_ipv4.clone());
    }
    if !POOL.contains(&ipv4) {
        return Err(switches.ipv4_outside_pool.clone());
    }
    let is_own = own == Some(ipv4);
    if (is_own && switches.own_ipv4_is_in_use) || (!is_own && world.holder_of(ipv4).is_some()) {
        return Err(switches.ipv4_in_use.clone());
    }
    let ipv6_follows = switches.ipv6_follows_ipv4;
    let addresses = &mut world.own_record(call.id())?.device.addresses;
    addresses.retain(|address| address.is_ipv6() && !ipv6_follows);
    // The API lists IPv4 first.
    addresses.insert(0, ipv4.into());
    if ipv6_follows {
        addresses.push(IpAddr::V6(ipv6_of(ipv4)));
    }
    Ok(Answer::empty_object())
}
