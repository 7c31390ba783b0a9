//! The policy file.

use http::{
    HeaderMap, StatusCode,
    header::{ACCEPT, IF_MATCH},
};

use super::call::Call;
use crate::simulator::{
    policy::Policy,
    response::{Answer, Refusal, Reply},
    world::World,
};

/// `GET /tailnet/{tailnet}/acl`: `HuJSON`, or JSON if the client accepts that.
#[expect(clippy::unnecessary_wraps, reason = "endpoints have one signature")]
pub(super) fn get(world: &mut World, call: &Call) -> Reply {
    Ok(shown(&world.policy, call.headers))
}

/// `POST /tailnet/{tailnet}/acl`: applies to tags at once.
pub(super) fn set(world: &mut World, call: &Call) -> Reply {
    let expected = call.headers.get(IF_MATCH).and_then(|it| it.to_str().ok());
    // Only the policy file has ETags. Writes to devices ignore If-Match.
    if expected.is_some_and(|expected| expected != world.policy.etag()) {
        return Err(Refusal::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition failed, invalid old hash",
        ));
    }
    let text = std::str::from_utf8(call.body)
        .map_err(|_| Refusal::bad_request("policy file is not UTF-8"))?;
    world.policy = Policy::parse(text)?;
    // Measured live: a device with an unowned tag must authenticate again.
    let now = world.now();
    for record in &mut world.records {
        let mut tags = record.device.tags.iter();
        if !record.device.is_external && tags.any(|tag| !world.policy.owns(tag)) {
            record.device.authorized = false;
            record.device.disconnect(now);
        }
    }
    Ok(shown(&world.policy, call.headers))
}

fn shown(policy: &Policy, headers: &HeaderMap) -> Answer {
    let accepts = headers.get(ACCEPT).and_then(|it| it.to_str().ok());
    let answer = match accepts {
        Some(accepts) if accepts.contains("application/json") => Answer::json(&policy.json),
        _ => Answer {
            body: policy.text.clone().into_bytes(),
            ..Answer::empty().header("content-type", "application/hujson")
        },
    };
    answer.header("etag", &policy.etag())
}
