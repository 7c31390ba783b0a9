//! Subnet routes: advertised ones, and enabled ones (which need not be advertised).

use ipnet::IpNet;
use serde_json::json;

use super::call::Call;
use crate::simulator::{
    body::{Body, missing},
    device::{Device, sort_routes},
    response::{Answer, Refusal, Reply},
    switches::HostBits,
    world::World,
};

/// `GET /device/{device}/routes`
pub(super) fn get(world: &mut World, call: &Call) -> Reply {
    Ok(both(&world.own_record(call.id())?.device))
}

/// `POST /device/{device}/routes`: replaces the whole list. Routes need not be advertised.
pub(super) fn set(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let mut body = Body::parse(call.body, &["routes"])?;
    let texts = body.strings("routes")?.ok_or_else(|| missing("routes"))?;
    let host_bits = world.switches.route_host_bits;
    let mut routes: Vec<IpNet> = texts
        .iter()
        .map(|text| parse(text, host_bits))
        .collect::<Result<_, _>>()?;
    sort_routes(&mut routes);
    let device = &mut world.own_record(call.id())?.device;
    // A list without 0.0.0.0/0 and ::/0 ends an exit node: they are routes like any other.
    device.enabled_routes = Some(routes);
    Ok(both(device))
}

fn both(device: &Device) -> Answer {
    Answer::json(&json!({
        "advertisedRoutes": device.advertised_routes.as_deref().unwrap_or_default(),
        "enabledRoutes": device.enabled_routes.as_deref().unwrap_or_default(),
    }))
}

fn parse(text: &str, host_bits: HostBits) -> Result<IpNet, Refusal> {
    let route: IpNet = text
        .parse()
        .map_err(|_| Refusal::bad_request(format!("invalid route \"{text}\": not a CIDR")))?;
    match host_bits {
        HostBits::Keep => Ok(route),
        HostBits::Mask => Ok(route.trunc()),
        HostBits::Refuse if route == route.trunc() => Ok(route),
        HostBits::Refuse => Err(Refusal::bad_request(format!(
            "invalid route \"{text}\": has non-address bits set"
        ))),
    }
}
