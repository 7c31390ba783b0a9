//! Messages of the API about a list that several policies share.

use serde_json::json;

use super::{desiring, guardrails};
use crate::plan::{DesiredSettings, PolicyPermissions, PolicyRecord, tests::scenes::plain_device};

#[test]
fn masked_message_names_no_entry_that_the_policy_may_not_change() {
    let rules = guardrails(&json!({"allowedPolicies": [
        {"tags": ["tag:db-*"], "routes": ["10.0.0.0/8"]},
    ]}));
    let policy = rules
        .admit(desiring("any", DesiredSettings::default()), None)
        .unwrap();
    let policies = [(&policy, &PolicyRecord::default())];
    let permissions = PolicyPermissions::on(&plain_device(), &policies, &[], &rules);
    for (message, reported) in [
        (
            "requested tags [tag:db-a tag:router] are invalid or not permitted",
            "requested tags [tag:db-a …] are invalid or not permitted",
        ),
        ("'tag:router': no owner.", "'…': no owner."),
        (
            "10.1.0.0/16, 192.168.0.0/24 and fd00::/8: refused (400, request id 7/a.b)",
            "10.1.0.0/16, … and …: refused (400, request id 7/a.b)",
        ),
    ] {
        assert_eq!(permissions.mask(&policy.key, message), reported);
    }
    let other = desiring("other", DesiredSettings::default()).key;
    assert_eq!(permissions.mask(&other, "tag:router"), "tag:router");
}
