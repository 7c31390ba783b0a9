//! The life of a device invite.

use serde_json::{Value, json};

use super::{Api, refused};

#[tokio::test]
async fn an_invite_is_created_sent_again_accepted_and_deleted() {
    let api = Api::start().await;
    let wanted = json!([{"email": "a@example.org"}, {"multiUse": true}]);
    let created = api.post("device/n1CNTRL/device-invites", wanted).await;
    assert_eq!(api.get("device/1/device-invites").await, created);
    assert_eq!(created[0]["deviceId"], 1, "the numeric id");
    let path = |at: usize| format!("device-invites/{}", created[at]["id"].as_str().unwrap());
    assert_eq!(api.get(&path(0)).await, created[0]);

    let resend = |at: usize| format!("{}/resend", path(at));
    let answered = api.call("POST", &resend(0), None).await;
    assert_eq!(
        answered,
        refused(429, "device invite emails can be sent once per minute")
    );
    let answered = api.call("POST", &resend(1), None).await;
    assert_eq!(
        answered,
        refused(400, "device invite was not created with an email")
    );
    api.simulator
        .switch(|switches| switches.clock_ahead_seconds = 60);
    assert_eq!(api.call("POST", &resend(0), None).await.status, 200);

    let accept = |at: usize| Some(json!({"invite": created[at]["inviteUrl"]}));
    for (at, status) in [(0, 200), (0, 400), (1, 200), (1, 200)] {
        let answered = api
            .call("POST", "device-invites/-/accept", accept(at))
            .await;
        assert_eq!(answered.status, status, "{}", answered.body);
    }
    assert_eq!(api.get(&path(0)).await["accepted"], true);

    assert_eq!(api.call("DELETE", &path(0), None).await.body, Value::Null);
    assert_eq!(api.call("GET", &path(0), None).await.status, 404);
    api.call("DELETE", "device/1", None).await;
    assert_eq!(
        api.call("GET", &path(1), None).await.status,
        404,
        "it went with its device"
    );
}
