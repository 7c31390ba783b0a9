//! Attributes of many devices in one request, a JSON merge patch.

use std::collections::{HashMap, HashSet};

use http::StatusCode;
use serde_json::Value;

use super::{
    attributes::{Expiry, check_comment, check_value, check_writable},
    call::Call,
};
use crate::simulator::{
    body::{Body, missing, wrong_type_of},
    device::{Attribute, Record},
    response::{Answer, Refusal, Reply},
    world::{AttributeKey, World},
};

/// `PATCH /tailnet/{tailnet}/device-attributes`
pub(super) fn patch(world: &mut World, call: &Call) -> Reply {
    let mut body = Body::parse(call.body, &["nodes", "comment"])?;
    check_comment(&mut body)?;
    let nodes = match body.take("nodes").ok_or_else(|| missing("nodes"))? {
        Value::Object(nodes) => nodes,
        other => return Err(wrong_type_of("nodes", &other, "object")),
    };
    if world
        .switches
        .batch_max_nodes
        .is_some_and(|most| nodes.len() > most)
    {
        let message = "too many nodes in one request";
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    // Copies only the devices that the batch names, as a tailnet may have thousands.
    let records = nodes
        .keys()
        .filter_map(|id| world.own_record(id).ok().cloned())
        .collect();
    let before = Before {
        records,
        attribute_keys: world.attribute_keys.clone(),
    };
    for (id, changes) in nodes {
        if let Err(refusal) = patch_node(world, &id, changes) {
            if world.switches.batch_is_atomic {
                before.restore(world);
            }
            return Err(refusal);
        }
    }
    Ok(Answer::json(&Value::Null))
}

/// The state that a refused batch restores: a copy of the devices that it names.
struct Before {
    records: Vec<Record>,
    attribute_keys: HashMap<String, AttributeKey>,
}

impl Before {
    fn restore(self, world: &mut World) {
        world.attribute_keys = self.attribute_keys;
        for record in self.records {
            if let Ok(present) = world.own_record(&record.device.id) {
                *present = record;
            }
        }
    }
}

fn patch_node(world: &mut World, id: &str, changes: Value) -> Result<(), Refusal> {
    let Value::Object(changes) = changes else {
        return Err(wrong_type_of(id, &changes, "object"));
    };
    let skips_unknown = world.switches.batch_skips_unknown_nodes;
    match world.own_record(id) {
        // Undocumented, hence a switch.
        Err(_) if skips_unknown => return Ok(()),
        found => found?,
    };
    refuse_twins(world, changes.keys())?;
    for (key, change) in changes {
        check_writable(world, &key)?;
        if change.is_null() {
            world.own_record(id)?.attributes.remove(&key);
        } else {
            patch_attribute(world, id, &key, change)?;
        }
    }
    Ok(())
}

/// Refuses two keys of one device that differ only in case.
fn refuse_twins<'a>(world: &World, keys: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert(key.to_ascii_lowercase()) {
            return Err(world.switches.attribute_case_collision.clone());
        }
    }
    Ok(())
}

fn patch_attribute(world: &mut World, id: &str, key: &str, change: Value) -> Result<(), Refusal> {
    let mut change = Body::of(change, &["value", "expiry"])?;
    let present = world.own_record(id)?.attributes.get(key).cloned();
    let value = change
        .take("value")
        // A merge patch may change the expiry alone.
        .or_else(|| present.as_ref().map(|attribute| attribute.value.clone()))
        .ok_or_else(|| missing("value"))?;
    let kept = present.filter(|_| world.switches.batch_keeps_expiry);
    let expiry =
        Expiry::read(&mut change, world.now())?.or(kept.and_then(|attribute| attribute.expiry));
    check_value(world, key, &value)?;
    world.learn_key(key, &value);
    let attributes = &mut world.own_record(id)?.attributes;
    attributes.insert(key.to_owned(), Attribute { value, expiry });
    Ok(())
}
