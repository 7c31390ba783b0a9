use std::process::Stdio;

use serde_json::{Value, json};

use super::tailnet::{EXAMPLES, Ran, Tailnet, demo_devices};

#[tokio::test]
async fn devices_are_listed_by_one_request_with_their_policies() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let mut command = tailnet.tsdp(&["devices", "-f", EXAMPLES]);
    let ran: Ran = command.env("COLUMNS", "120").output().await.unwrap().into();
    insta::assert_snapshot!(ran.ok(), @"
    NAME           TAGS OR USER        ROUTES  KEY               LAST SEEN  MANAGED BY
    amelie-laptop  amelie@example.com          never expires                network/amelie-laptop
    ben-phone      ben@example.com             until 2099-01-01
    ci-runner      ci@example.com              until 2099-01-01             network/ci-runner
    fra-router     tag:router          2 of 5  until 2099-01-01             network/fra-router
    ip-10-0-3-7    ops@example.com             until 2099-01-01             network/orders-db
    lobby-kiosk    kiosk@example.com   1 of 1  until 2099-01-01             network/lobby-kiosk
    nas            amelie@example.com  1 of 1  until 2099-01-01
    old-gateway    tag:router          3 of 3  until 2099-01-01             network/old-gateway
    ");
    assert_eq!(tailnet.requests(), ["GET /tailnet/-/devices?fields=all"]);
}

#[tokio::test]
async fn wide_table_lists_what_the_narrow_one_counts() {
    let mut devices = demo_devices();
    devices.push(json!({
        "hostname": "guest\u{1b}[31m", "name": "guest.tail0b5e.ts.net", "user": "someone@example.org",
        "isExternal": true, "lastSeen": "2026-01-20T12:00:00Z", "connectedToControl": false,
        "expires": "2025-12-01T00:00:00Z", "created": "2025-06-01T00:00:00Z",
    }));
    let tailnet = Tailnet::of(devices).await;
    let wide = tailnet.run(&["devices", "-o", "wide"]).await.ok();
    insta::assert_snapshot!(wide, @r"
    NAME           TAGS OR USER         ROUTES  KEY                 LAST SEEN         NODE            HOSTNAME         OS       IPV4        ENABLED                       ADVERTISED                               STATE
    amelie-laptop  amelie@example.com           never expires                         n20002CNTRL     amelie-laptop    macOS    100.64.0.2
    ben-phone      ben@example.com              until 2099-01-01                      n20007CNTRL     ben-phone        iOS      100.64.0.6
    ci-runner      ci@example.com               until 2099-01-01                      n20005CNTRL     runner-7f        linux    100.64.0.4                                                                         not authorized
    fra-router     tag:router           2 of 5  until 2099-01-01                      n20001CNTRL     fra-router       linux    100.64.0.1  10.0.0.0/16,192.168.0.0/24    0.0.0.0/0,10.0.0.0/16,::/0,fd7a:10::/48
    guest          someone@example.org          expired 2025-12-01  2026-01-20 12:00  n20009CNTRL     guest\u{1b}[31m  linux    100.64.0.8                                                                         shared in
    ip-10-0-3-7    ops@example.com              until 2099-01-01                      nRx7k2Qp4CNTRL  ip-10-0-3-7      linux    100.90.1.7
    lobby-kiosk    kiosk@example.com    1 of 1  until 2099-01-01                      n20004CNTRL     lobby-kiosk      windows  100.64.0.3  10.9.0.0/24
    nas            amelie@example.com   1 of 1  until 2099-01-01                      n20008CNTRL     nas              linux    100.64.0.7  192.168.178.0/24
    old-gateway    tag:router           3 of 3  until 2099-01-01                      n20006CNTRL     old-gateway      linux    100.64.0.5  0.0.0.0/0,172.16.0.0/12,::/0  0.0.0.0/0,172.16.0.0/12,::/0
    ");
    let users = [
        "devices",
        "--select",
        "users=*@example.com",
        "--select",
        "os=linux",
    ];
    let listed = tailnet.run(&users).await.ok();
    let names: Vec<_> = listed
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["NAME", "ci-runner", "ip-10-0-3-7", "nas"]);
}

#[tokio::test]
async fn the_list_can_be_narrowed_to_what_no_policy_one_policy_or_drift_concerns() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let listed = async |filter: &[&str]| {
        let arguments = [&["devices", "-f", EXAMPLES], filter].concat();
        let table = tailnet.run(&arguments).await.ok();
        let names = table
            .lines()
            .skip(1)
            .map(|line| line.split(' ').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--unmanaged"]).await, ["ben-phone", "nas"]);
    for policy in ["fra-router", "network/fra-router"] {
        assert_eq!(listed(&["--managed-by", policy]).await, ["fra-router"]);
    }
    // What was changed is in sync; what is held still differs.
    let drifted = listed(&["--drifted"]).await;
    tailnet.run(&["apply", "-f", EXAMPLES, "--yes"]).await;
    let held = listed(&["--drifted"]).await;
    assert!(held.len() < drifted.len(), "{drifted:?}, {held:?}");
    let of_kiosk = ["--drifted", "--managed-by", "lobby-kiosk"];
    assert_eq!(listed(&of_kiosk).await, [""; 0]);

    for (arguments, problem) in [
        (&["--unmanaged"][..], "--unmanaged needs policies"),
        (&["--drifted"], "--drifted needs policies"),
        (
            &["-f", EXAMPLES, "--managed-by", "nosuch"],
            "there is no such policy",
        ),
    ] {
        let ran = tailnet.run(&[&["devices"], arguments].concat()).await;
        assert!(ran.code == Some(1) && ran.err.contains(problem), "{ran:?}");
    }
}

/// Neither a name nor a tag is broken in the middle; what matters least gives way.
#[tokio::test]
async fn a_narrow_terminal_shows_whole_names() {
    let mut devices = demo_devices();
    let tags = ["tag:router-of-frankfurt", "tag:site-fra", "tag:prod"];
    devices.push(json!({"hostname": "fra-router-second-building", "tags": tags}));
    let tailnet = Tailnet::of(devices).await;
    for columns in ["80", "100", "200"] {
        let mut command = tailnet.tsdp(&["devices", "-f", EXAMPLES]);
        let ran: Ran = command
            .env("COLUMNS", columns)
            .output()
            .await
            .unwrap()
            .into();
        let table = ran.ok();
        let width: usize = columns.parse().unwrap();
        assert!(
            table.lines().all(|line| line.chars().count() <= width),
            "{table}"
        );
        let names = [
            "fra-router-second-building",
            "network/amelie-laptop",
            "amelie@example.com",
        ];
        for name in names.iter().chain(&tags) {
            assert!(table.contains(name), "{columns}: {table}");
        }
        let shows_all = table.contains("LAST SEEN");
        assert!(
            columns == "100" || shows_all == (columns == "200"),
            "{table}"
        );
    }
}

#[tokio::test]
async fn json_and_yaml_have_the_same_content() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let json = ["devices", "-f", EXAMPLES, "-o", "json"];
    let json: Value = serde_json::from_str(&tailnet.run(&json).await.ok()).unwrap();
    let yaml = ["devices", "-f", EXAMPLES, "-o", "yaml"];
    let yaml: Value = serde_yaml::from_str(&tailnet.run(&yaml).await.ok()).unwrap();
    assert_eq!(json, yaml);
    let devices = json.as_array().unwrap();
    assert_eq!(devices.len(), 8);
    let router = devices
        .iter()
        .find(|device| device["hostname"] == "fra-router");
    let expected = json!({
        "nodeId": router.unwrap()["nodeId"], "name": "fra-router.tail1234.ts.net",
        "hostname": "fra-router", "os": "linux", "clientVersion": "1.96.2",
        "updateAvailable": false, "ephemeral": false, "created": "2026-01-05T08:00:00Z", "user": "", "tags": ["tag:router"],
        "ipv4": router.unwrap()["ipv4"], "authorized": true, "external": false,
        "keyExpiryDisabled": false, "expires": "2099-01-01T00:00:00Z", "lastSeen": null,
        "enabledRoutes": ["10.0.0.0/16", "192.168.0.0/24"],
        "advertisedRoutes": ["0.0.0.0/0", "10.0.0.0/16", "::/0", "fd7a:10::/48"],
        "managedBy": ["network/fra-router"],
    });
    assert_eq!(*router.unwrap(), expected);
    let unmanaged = devices.iter().find(|device| device["hostname"] == "nas");
    assert_eq!(unmanaged.unwrap()["managedBy"], json!([]));
}

#[tokio::test]
async fn a_closed_pipe_ends_the_command_quietly() {
    let tailnet = Tailnet::large().await;
    for args in [&["devices"][..], &["export", "--without-attributes"]] {
        let mut child = tailnet.tsdp(args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran: Ran = child.wait_with_output().await.unwrap().into();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(
            !ran.err.contains("pipe") && !ran.err.contains("panic"),
            "{}",
            ran.err
        );
    }
}

/// Each command that reads the devices names on stderr what it could not read, and goes on.
#[tokio::test]
async fn a_device_that_cannot_be_read_stops_no_command_and_is_named_on_stderr() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let odd =
        json!({"n20001CNTRL": {"tags": null, "expires": "soon"}, "n20008CNTRL": {"nodeId": 7}});
    tailnet.simulator.switch(|switches| {
        switches.reported_as = serde_json::from_value(odd).unwrap();
    });
    for arguments in [
        &["devices"][..],
        &["export", "--without-attributes"],
        &["plan", "-f", EXAMPLES],
    ] {
        let ran = tailnet.run(arguments).await;
        assert!(
            ran.code.is_some_and(|code| code != 1),
            "{arguments:?}: {ran:?}"
        );
        for named in [
            "n20001CNTRL: tags, expires",
            "(nas.tail1234.ts.net): nodeId",
        ] {
            assert!(ran.err.contains(named), "{arguments:?}: {ran:?}");
        }
    }
    let listed = tailnet.run(&["devices"]).await.out;
    let router = listed.lines().find(|line| line.starts_with("fra-router"));
    assert!(
        router.is_some_and(|line| line.contains("unreadable")),
        "{listed}"
    );
    assert!(
        listed.contains("amelie-laptop  amelie@example.com"),
        "{listed}"
    );
}
