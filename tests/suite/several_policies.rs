//! The table of docs/combine-policies.md matches the plan.

use std::collections::BTreeSet;

use serde_json::json;
use tsdp::{
    convert,
    model::{Device, RouteSet, TagSet},
    plan::{self, Call, DeviceIndex, PolicyInput, PolicyKey},
};

/// `a c` as tags. `–` is none.
fn tags(cell: &str) -> Vec<String> {
    let names = cell.split_whitespace().filter(|name| *name != "–");
    names.map(|name| format!("tag:{name}")).collect()
}

/// `Exact a b, suspended` as a policy. The name decides its precedence here.
fn policy(name: &str, cell: &str) -> Option<PolicyInput> {
    let (desired, mode) = cell.split_once(", ").unwrap_or((cell, "enforcing"));
    let (extent, names) = desired.split_once(' ')?;
    let spec = json!({
        "device": {"nodeId": "n1"},
        "tags": tags(names),
        "ownership": {"tags": extent},
        "suspend": mode == "suspended",
        "enforcement": if mode == "observing" { "Observe" } else { "Enforce" },
    });
    let key = PolicyKey::new("network", name);
    let created = jiff::Timestamp::UNIX_EPOCH;
    let spec = serde_json::from_value(spec).unwrap();
    Some(convert::policy(key, name.into(), 1, created, &spec, None))
}

fn device(tags: TagSet) -> Device {
    Device {
        legacy_id: "1".into(),
        name: "one.tail1.ts.net".into(),
        hostname: "one".into(),
        user: "amelie@example.com".into(),
        tags,
        os: "linux".into(),
        client_version: "1.96.2".to_owned(),
        enabled_routes: Some(RouteSet::new()),
        ..Device::plain("n1".parse().unwrap())
    }
}

fn set(cell: &str) -> TagSet {
    tags(cell).iter().map(|tag| tag.parse().unwrap()).collect()
}

#[test]
fn the_table_of_lists_matches_the_plan() {
    let page = include_str!("../../docs/combine-policies.md");
    let table = page.split("|---|---|---|---|---|\n").nth(1).unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [first, second, before, after, conflict] = cells[..] else {
            panic!("{row}");
        };
        let declared = [policy("first", first), policy("second", second)];
        let declared: Vec<_> = declared.into_iter().flatten().collect();
        let held: Vec<_> = declared
            .iter()
            .map(|declared| (declared.policy.as_deref().unwrap(), &declared.record))
            .collect();
        let mut device = device(set(before));
        let fleet = DeviceIndex::new([device.clone()]);
        let now = jiff::Timestamp::UNIX_EPOCH;
        let plan = plan::plan_device(
            &device,
            None,
            &held,
            &plan::PlanContext {
                index: &fleet,
                approvals: &plan::ApprovalStates::default(),
                tailnet_wide: &plan::TailnetWide::default(),
                now,
                released: &[],
                turns: &BTreeSet::new(),
                guardrails: &plan::Guardrails::default(),
            },
        );
        if let Some((call, _)) = plan::next_call(&plan, &BTreeSet::new()) {
            assert!(matches!(call, Call::SetTags(..)), "{row}: {call:?}");
            plan::apply(&call, &mut device);
        }
        assert_eq!(device.tags, set(after), "{row}");
        let lost: Vec<_> = plan.owners.conflicts.iter().collect();
        match lost[..] {
            [] => assert_eq!(conflict, "none", "{row}"),
            [one] => {
                let reported = format!("{} overridden by {}", one.overridden.name, one.owner.name);
                assert_eq!(conflict, reported, "{row}");
            }
            _ => panic!("{row}: {lost:?}"),
        }
        count += 1;
    }
    assert!(count > 10, "{count} rows");
}
