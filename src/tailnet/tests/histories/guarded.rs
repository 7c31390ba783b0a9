//! Guardrails that are edited while the engine runs, and namespaces whose labels change. `checks.rs` checks
//! each request against them.

use std::time::Duration;

use serde_json::json;

use super::{History, World};

pub const HISTORY: History = History {
    name: "guarded",
    run: run_history,
    share: Duration::from_secs(20),
};

impl World {
    fn change_the_guards(&mut self) {
        let all = [
            json!({}),
            json!({"allowedPolicies": [{}]}),
            json!({"allowedPolicies": [{}], "suspend": true}),
            json!({"allowedPolicies": [{}], "protectedDevices": [{"tags": ["tag:a"]}]}),
            json!({"allowedPolicies": [{"namespaces": {"matchLabels": {"team": "network"}}}]}),
            json!({"allowedPolicies": [{"tags": ["tag:a", "tag:b"], "routes": ["10.0.0.0/16"]}]}),
            json!({"allowedPolicies": [
                {"tags": ["tag:a", "tag:b"], "routes": ["10.0.0.0/9"]},
                {"tags": ["tag:*"], "devices": [{"tags": ["tag:c"]}]},
            ]}),
            json!({"allowedPolicies": [
                {"fields": ["tags", "enabledRoutes", "exitNode", "postureAttributes"]},
                {"devices": [{"tags": ["tag:b"]}]},
            ], "protectedDevices": [{"trustClaims": true, "hostnames": ["host-1"]}]}),
        ];
        match self.rng.u8(..4) {
            0 => self.label(Some("network")),
            1 => self.label(None),
            _ => {
                let spec = &all[self.rng.usize(..all.len())];
                self.guard(spec);
            }
        }
    }
}

fn run_history(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.populate();
    world.label(Some("network"));
    world.guard(&json!({"allowedPolicies": [{}]}));
    world.start();
    world.live(|world| {
        if world.rng.one_in(3) {
            world.change_the_guards();
        } else {
            world.disturb();
        }
    });
    world.run_for(Duration::from_hours(3));
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_hours(1));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    world.steps
}

#[test]
fn no_request_exceeds_the_guardrails_and_every_allowed_change_is_made() {
    HISTORY.run_share();
}
