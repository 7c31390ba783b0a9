//! The simulator against the API page of 2024-05: its request examples, sent with curl.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tsdp::simulator::{AttributeWriteAnswer, Options, Simulator, Switches};

#[derive(Deserialize)]
struct Example {
    name: String,
    command: String,
    answer: Value,
}

#[tokio::test]
async fn each_request_example_gives_the_documented_answer() {
    let examples: Vec<Example> =
        serde_yaml::from_str(include_str!("seed_page/examples.yaml")).unwrap();
    assert_eq!(examples.len(), 14, "the page has 14 request examples");
    for example in examples {
        let simulator = start().await;
        let invites = create_invites(&simulator);
        if example.name == "list device invites" {
            invites.await;
        }
        let found = send(&simulator, &example.command).await;
        assert!(
            fits(&example.answer, &found),
            "{}: expected {:#}, found {found:#}",
            example.name,
            example.answer
        );
    }
}

/// The tailnet of the page, with the devices of its examples.
async fn start() -> Simulator {
    let devices = json!([
        {
            "id": "12345",
            "addresses": ["100.71.74.78", "fd7a:115c:a1e0:ac82:4843:ca90:697d:c36e"],
        },
        {
            "id": "11055",
            "advertisedRoutes": ["10.0.0.0/16", "192.168.1.0/24"],
            "clientVersion": "1.40.0",
            "attributes": {
                "custom:myScore": 87,
                "custom:diskEncryption": true,
                "custom:myAttribute": "my_value",
                "node:osVersion": "5.19.0-42-generic",
            },
        },
    ]);
    let options = Options {
        devices: serde_json::from_value(devices).unwrap(),
        policy_file: Some(r#"{"tagOwners": {"tag:foo": [], "tag:bar": []}}"#.into()),
        switches: Switches {
            // The page says `{}`. The live API sends `null`, which is the default here.
            attribute_write_answer: AttributeWriteAnswer::Empty,
            ..Switches::default()
        },
        ..Options::default()
    };
    Simulator::start(options).await.unwrap()
}

/// The invites that the page's list shows: one sent by email, one accepted.
async fn create_invites(simulator: &Simulator) {
    let api =
        "curl https://api.tailscale.com/api/v2/device/11055/device-invites -u tskey-api-xxxxx:";
    let by_email = r#"[{"allowExitNode": true, "email": "user@example.com"}]"#;
    send(simulator, &format!("{api} -d '{by_email}'")).await;
    let created = send(simulator, &format!("{api} -d '[{{}}]'")).await;
    let accept = api.replace("device/11055/device-invites", "device-invites/-/accept");
    let body = json!({"invite": created[0]["inviteUrl"]});
    send(simulator, &format!("{accept} -d '{body}'")).await;
}

/// Runs a command of the page and returns the body of a 200. An empty body is `"nothing"`.
async fn send(simulator: &Simulator, command: &str) -> Value {
    let command = command
        .replace("https://api.tailscale.com", &simulator.url())
        .replace("tskey-api-xxxxx", "tskey-api-any");
    let command = format!(r"{} -sS -w '\n%{{http_code}}'", command.trim_end());
    let ran = Command::new("sh")
        .args(["-c", &command])
        .output()
        .await
        .unwrap();
    let output = String::from_utf8(ran.stdout).unwrap();
    let (body, status) = output.rsplit_once('\n').unwrap();
    assert_eq!(status, "200", "{command}: {body}");
    match body {
        "" => json!("nothing"),
        body => serde_json::from_str(body).unwrap(),
    }
}

/// Whether a response is the documented one, by the rules at the top of `examples.yaml`.
fn fits(documented: &Value, found: &Value) -> bool {
    match (documented, found) {
        (Value::String(text), _) if text == "*" => true,
        (Value::Object(documented), Value::Object(found)) => {
            let more = documented.contains_key("...");
            let mut named = documented.iter().filter(|(name, _)| *name != "...");
            (more || documented.len() == found.len())
                && named.all(|(name, value)| found.get(name).is_some_and(|it| fits(value, it)))
        }
        (Value::Array(documented), Value::Array(found)) => {
            documented.len() == found.len()
                && documented
                    .iter()
                    .zip(found)
                    .all(|(documented, found)| fits(documented, found))
        }
        _ => documented == found,
    }
}
