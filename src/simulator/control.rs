//! The control endpoints beside the API, under `/_sim/`: tests and people inspect and change the simulator
//! with them.

use axum::body::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    device::Record,
    fault::FaultSpec,
    path::Target,
    response::{Answer, Refusal, Reply},
    world::World,
};

/// Answers a request to `/_sim/…`.
pub(super) fn answer(world: &mut World, method: &str, target: &Target, body: &Bytes) -> Answer {
    let segments: Vec<&str> = target.segments.iter().skip(1).map(String::as_str).collect();
    reply(world, method, &segments, body).unwrap_or_else(Answer::from)
}

fn reply(world: &mut World, method: &str, segments: &[&str], body: &Bytes) -> Reply {
    match (method, segments) {
        ("GET", ["requests"]) => {
            return Ok(Answer::json(&world.journal.entries().collect::<Vec<_>>()));
        }
        ("DELETE", ["requests"]) => world.journal.clear(),
        ("GET", ["devices"]) => return Ok(Answer::json(&json!({"devices": devices(world)?}))),
        ("POST", ["devices"]) => return Ok(Answer::json(&add(world, read(body)?)?)),
        ("GET", ["devices", id]) => return Ok(Answer::json(&device(world, id)?)),
        ("PATCH", ["devices", id]) => return Ok(Answer::json(&world.drift(id, &read(body)?)?)),
        ("DELETE", ["devices", id]) => world.remove(id)?,
        ("GET", ["switches"]) => return Ok(Answer::json(&world.switches)),
        ("PUT", ["switches"]) => {
            set_switches(world, read(body)?)?;
            return Ok(Answer::json(&world.switches));
        }
        ("GET", ["faults"]) => return Ok(Answer::json(&world.faults.to_json()?)),
        ("POST", ["faults"]) => {
            return Ok(Answer::json(&json!({"id": inject(world, read(body)?)?})));
        }
        ("DELETE", ["faults"]) => world.faults.clear(),
        ("DELETE", ["faults", id]) => remove_fault(world, id)?,
        ("DELETE", ["tokens"]) => world.credentials.revoke_tokens(),
        _ => {
            return Err(Refusal::not_found(
                "nothing here: `tsdp simulate --help` lists the paths under /_sim/",
            ));
        }
    }
    Ok(Answer::empty_object())
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    Ok(serde_json::from_slice(body)?)
}

fn remove_fault(world: &mut World, id: &str) -> Result<(), Refusal> {
    if id.parse().is_ok_and(|id| world.faults.remove(id)) {
        return Ok(());
    }
    Err(Refusal::not_found(format!("no fault has the id {id}")))
}

/// All devices with their attributes.
pub(super) fn devices(world: &mut World) -> Result<Vec<Value>, Refusal> {
    let now = world.now();
    let records = world.records.iter_mut().map(|record| {
        // Expired attributes go when they are read: the simulator has no timers.
        record.drop_expired(now);
        record.to_json()
    });
    Ok(records.collect::<Result<_, _>>()?)
}

/// One device with its attributes.
pub(super) fn device(world: &mut World, id: &str) -> Result<Value, Refusal> {
    Ok(world.any_record(id)?.to_json()?)
}

/// Adds a device in the shape of the list response. Missing fields are generated.
pub(super) fn add(world: &mut World, json: Value) -> Result<Value, Refusal> {
    Ok(world.add(Record::from_json(json)?)?.to_json()?)
}

/// Sets the switches that `changes` names.
pub(super) fn set_switches(world: &mut World, changes: Value) -> Result<(), Refusal> {
    let Value::Object(changes) = changes else {
        return Err(Refusal::bad_request("expected a JSON object of switches"));
    };
    // Through JSON, so that serde refuses a misspelled switch and the others keep their values.
    let mut switches = serde_json::to_value(&world.switches)?;
    for (name, setting) in changes {
        switches[name] = setting;
    }
    world.switches = serde_json::from_value(switches)?;
    Ok(())
}

/// Injects a fault and returns its id.
pub(super) fn inject(world: &mut World, spec: FaultSpec) -> Result<u64, Refusal> {
    world.faults.add(spec, &world.records)
}

/// The response to a path outside of both the API and `/_sim/`.
pub(super) fn elsewhere() -> Answer {
    Refusal::new(StatusCode::NOT_FOUND, "404 page not found").into()
}
