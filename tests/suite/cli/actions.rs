//! One-shot actions are shown without a cluster and never sent there.

use serde_json::json;

use super::tailnet::{NO_LIMIT, Tailnet};

#[tokio::test]
async fn one_shot_actions_are_planned_and_left_to_the_controller() {
    let runner = |name: &str, seen: &str| {
        json!({"hostname": name, "name": format!("{name}.tail1.ts.net"), "tags": ["tag:ci"],
               "connectedToControl": false, "lastSeen": seen, "expires": "2099-01-01T00:00:00Z"})
    };
    let away = "2026-01-05T08:00:00Z";
    let devices = vec![
        runner("ci-1", away),
        runner("ci-2", away),
        runner("ci-3", away),
        runner("ci-new", "2099-01-01T00:00:00Z"),
    ];
    let tailnet = Tailnet::of(devices).await;
    let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - 5).unwrap();
    // A copy from a cluster has a uid, but not the record in the status there.
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\n\
             metadata: {{name: {name}, uid: 00000000-0000-0000-0000-000000000001}}\nspec: {spec}\n"
        )
    };
    let policies = policy(
        "runners",
        r#"{deviceSelector: {tags: ["tag:ci"]}, deleteInactive: {inactiveFor: 720h, maxPerDay: 2}}"#,
    ) + &policy(
        "expire",
        &format!("{{device: {{hostname: ci-new}}, expireKeyAt: \"{at}\"}}"),
    ) + &format!("---\n{NO_LIMIT}\n");
    let planned = tailnet.run_with(&["plan", "-f", "-"], &policies).await;
    let reported = planned
        .with_code(2)
        .replace(&at.to_string(), "2026-00-00T00:00:00Z");
    insta::assert_snapshot!(reported, @r#"
    DEVICES    SETTING         CHANGE
    2 devices  deleteInactive  last seen 2026-01-05T08:00:00Z → deleted  (disruptive: deletes the device for good; held: a one-shot action needs a status that records it: only the controller does it, in a cluster; declared by default/runners)
      ci-1, ci-2
    ci-new     expireKeyAt     expires 2099-01-01T00:00:00Z → expired as of 2026-00-00T00:00:00Z  (disruptive: cuts the device off until someone logs in to it; held: a one-shot action needs a status that records it: only the controller does it, in a cluster; declared by default/expire)

    No change now, 3 held (3 disruptive); 2 policies, 4 devices in the tailnet.
    "#);
    let plan = ["plan", "-f", "-", "-o", "json"];
    let reported = tailnet.run_with(&plan, &policies).await.with_code(2);
    let reported: serde_json::Value = serde_json::from_str(&reported).unwrap();
    assert_eq!(
        reported["changes"][0]["disruptive"],
        "deletes the device for good"
    );

    tailnet.requests();
    let apply = ["apply", "-f", "-", "--yes"];
    tailnet.run_with(&apply, &policies).await.with_code(2);
    let sent = tailnet.requests();
    assert!(sent.iter().all(|call| call.starts_with("GET")), "{sent:?}");
}
