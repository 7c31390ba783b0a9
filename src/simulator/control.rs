//! What stands beside the API, under `/_sim/`: for tests and people to look in and to interfere.

use axum::body::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Refusal, Reply},
    device::Record,
    fault::FaultSpec,
    path::Target,
    world::World,
};

/// Answers a request to `/_sim/…`.
pub(super) fn answer(world: &mut World, method: &str, target: &Target, body: &Bytes) -> Answer {
    let segments: Vec<&str> = target.segments.iter().skip(1).map(String::as_str).collect();
    let reply = match (method, &*segments) {
        ("GET", ["requests"]) => requests(world),
        ("DELETE", ["requests"]) => {
            world.journal.clear();
            Ok(Answer::empty_object())
        }
        ("GET", ["devices"]) => {
            devices(world).map(|devices| Answer::json(&json!({"devices": devices})))
        }
        ("POST", ["devices"]) => read(body)
            .and_then(|json| add(world, json))
            .map(|it| Answer::json(&it)),
        ("GET", ["devices", id]) => device(world, id).map(|it| Answer::json(&it)),
        ("PATCH", ["devices", id]) => read(body)
            .and_then(|patch: Value| world.drift(id, &patch))
            .map(|it| Answer::json(&it)),
        ("DELETE", ["devices", id]) => world.remove(id).map(|()| Answer::empty_object()),
        ("GET", ["switches"]) => Ok(Answer::json(&world.switches)),
        ("PUT", ["switches"]) => read(body)
            .and_then(|changes| set_switches(world, changes))
            .map(|()| Answer::json(&world.switches)),
        ("GET", ["faults"]) => faults(world),
        ("POST", ["faults"]) => read(body)
            .and_then(|spec| inject(world, spec))
            .map(|id| Answer::json(&json!({"id": id}))),
        ("DELETE", ["faults"]) => {
            world.faults.clear();
            Ok(Answer::empty_object())
        }
        ("DELETE", ["faults", id]) => remove_fault(world, id),
        ("DELETE", ["tokens"]) => {
            world.credentials.revoke_tokens();
            Ok(Answer::empty_object())
        }
        _ => Err(Refusal::not_found(
            "nothing here: `tsdp simulate --help` lists what stands under /_sim/",
        )),
    };
    reply.unwrap_or_else(Answer::from)
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(unreadable)
}

fn unreadable(error: impl ToString) -> Refusal {
    Refusal::bad_request(error.to_string())
}

fn requests(world: &World) -> Reply {
    let entries: Vec<_> = world.journal.entries().collect();
    Ok(Answer::json(&json!({"requests": entries})))
}

fn faults(world: &World) -> Reply {
    let faults = world.faults.to_json().map_err(unreadable)?;
    Ok(Answer::json(&json!({"faults": faults})))
}

fn remove_fault(world: &mut World, id: &str) -> Reply {
    if id.parse().is_ok_and(|id| world.faults.remove(id)) {
        return Ok(Answer::empty_object());
    }
    Err(Refusal::not_found(format!("no fault has the id {id}")))
}

/// All devices with their attributes.
pub(super) fn devices(world: &mut World) -> Result<Vec<Value>, Refusal> {
    let now = world.now();
    let records = world.records.iter_mut().map(|record| {
        record.drop_expired(now);
        record.to_json()
    });
    records.collect::<Result<_, _>>().map_err(unreadable)
}

/// One device with its attributes.
pub(super) fn device(world: &mut World, id: &str) -> Result<Value, Refusal> {
    world.any_record(id)?.to_json().map_err(unreadable)
}

/// Adds a device in the shape of the list answer; what it lacks is made up.
pub(super) fn add(world: &mut World, json: Value) -> Result<Value, Refusal> {
    let record = Record::from_json(json).map_err(unreadable)?;
    world.add(record)?.to_json().map_err(unreadable)
}

/// Sets the switches that `changes` names.
pub(super) fn set_switches(world: &mut World, changes: Value) -> Result<(), Refusal> {
    let Value::Object(changes) = changes else {
        return Err(Refusal::bad_request("expected a JSON object of switches"));
    };
    let mut switches = serde_json::to_value(&world.switches).map_err(unreadable)?;
    for (name, setting) in changes {
        switches[name] = setting;
    }
    world.switches = serde_json::from_value(switches).map_err(unreadable)?;
    Ok(())
}

/// Puts a fault in and gives its id.
pub(super) fn inject(world: &mut World, spec: FaultSpec) -> Result<u64, Refusal> {
    world.faults.add(spec, &world.records)
}

/// What a request outside of both the API and `/_sim/` is answered.
pub(super) fn elsewhere() -> Answer {
    Refusal::new(StatusCode::NOT_FOUND, "404 page not found").into()
}
