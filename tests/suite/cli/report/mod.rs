//! The page of `tsdp report`, in a real Chromium.

mod browser;

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tsdp::simulator;

use self::browser::Browser;
use super::tailnet::{API_KEY, Tailnet};
use crate::support::eventually;

const NAME: &str = "<script>alert(1)</script>";

/// A tailnet with policies, and the page about it.
struct Report {
    tailnet: Tailnet,
    page: PathBuf,
}

impl Report {
    async fn of(devices: Vec<Value>, policies: &str) -> Self {
        let tailnet = Tailnet::of(devices).await;
        fs::write(tailnet.path("policies.yaml"), policies).unwrap();
        let page = tailnet.path("tailnet.html");
        let args = ["report", "-f", "policies.yaml", "--out", "tailnet.html"];
        assert_eq!(tailnet.run(&args).await.ok(), "");
        Self { tailnet, page }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.page).unwrap()
    }

    fn open(&self, fragment: &str) -> Browser {
        let mut browser = Browser::start();
        browser.resize(1200, 900);
        browser.open(&self.page, fragment);
        browser
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {{name: {name}, namespace: \
         network}}, spec: {{{spec}}}}}\n"
    )
}

/// A router with a route to enable, a server that stays, a laptop without a policy, an exit node, and a device
/// with a name that is markup.
async fn small() -> Report {
    let device = |name: &str, more: Value| {
        let mut device = json!({
            "hostname": name, "name": format!("{name}.tail1.ts.net"), "tags": ["tag:server"], "os": "linux",
        });
        device
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        device
    };
    let routes = json!(["10.0.0.0/16", "10.1.0.0/16"]);
    let exit = json!(["0.0.0.0/0", "::/0"]);
    let devices = vec![
        device(
            "fra-router",
            json!({"tags": ["tag:router"], "advertisedRoutes": routes, "enabledRoutes": ["10.0.0.0/16"]}),
        ),
        device("orders-db", json!({})),
        device(
            "exit",
            json!({"advertisedRoutes": exit, "enabledRoutes": exit}),
        ),
        device(
            "amelie-laptop",
            json!({"tags": [], "user": "amelie@example.com", "os": "macOS"}),
        ),
        device(
            "x",
            json!({"hostname": NAME, "name": NAME, "tags": [], "user": NAME, "os": NAME}),
        ),
    ];
    let policies = policy(
        "routers",
        "deviceSelector: {tags: ['tag:router']}, enabledRoutes: [10.0.0.0/16, 10.1.0.0/16]",
    ) + &policy(
        "servers",
        "deviceSelector: {tags: ['tag:server']}, tags: ['tag:server']",
    ) + "---\n{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: default}, spec: \
           {credentialsSecret: {name: a}, maxChangedDevices: 100%, allowedPolicies: [{namespaces: {names: [network]}}]}}\n";
    Report::of(devices, &policies).await
}

/// The names in the list, from top to bottom.
const LISTED: &str = "[...document.querySelectorAll('#devices tbody tr')].map(row => \
                      row.querySelector('td div').firstChild.textContent)";

/// Waits until an expression has a value.
async fn until(page: &mut Browser, expression: &str, value: &Value) {
    eventually(Duration::from_secs(20), async || {
        let found = page.value(expression);
        (found == *value).then_some(()).ok_or(found)
    })
    .await;
}

/// The text of the row of a device.
fn row(browser: &mut Browser, name: &str) -> String {
    let rows = browser.value(
        "[...document.querySelectorAll('#devices tbody tr')].map(row => \
         [...row.querySelectorAll('td > div')].map(cell => cell.innerText).join(' | '))",
    );
    let rows = rows.as_array().unwrap().iter().filter_map(Value::as_str);
    let row = rows.filter(|row| row.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(row.len(), 1, "{name}");
    row[0].replace('\n', " ")
}

#[tokio::test]
async fn the_page_shows_the_tailnet_as_observed_and_as_desired() {
    let report = small().await;
    let mut page = report.open("");
    assert_eq!(page.value("document.title"), "Tailnet tail1.ts.net");
    assert_eq!(
        page.value(LISTED),
        json!([NAME, "amelie-laptop", "exit", "fra-router", "orders-db"])
    );
    for (name, words) in [
        (
            "fra-router",
            [
                "network/routers",
                "changes",
                "enabledRoutes +10.1.0.0/16",
                "1 of 2",
            ],
        ),
        (
            "orders-db",
            ["network/servers", "in sync", "tag:server", "linux"],
        ),
        (
            "amelie-laptop",
            ["amelie@example.com", "unmanaged", "macOS", ""],
        ),
        (
            "exit",
            ["network/servers", "exit node", "2 of 2", "in sync"],
        ),
    ] {
        let row = row(&mut page, name);
        for word in words {
            assert!(row.contains(word), "{word}: {row}");
        }
    }
    let changes = page.value("document.querySelector('#changes').innerText");
    assert!(
        changes.as_str().unwrap().contains("+10.1.0.0/16"),
        "{changes}"
    );
    let picture = page.value("document.querySelector('.picture').textContent");
    for word in ["fra-router", "10.0.0.0/16", "10.1.0.0/16", "exit node"] {
        assert!(
            picture.as_str().unwrap().contains(word),
            "{word}: {picture}"
        );
    }
    let lines = "[...document.querySelectorAll('.picture .line')].map(line => line.getAttribute('class')).sort()";
    assert_eq!(page.value(lines), json!(["line", "line", "line added"]));
}

#[tokio::test]
async fn the_list_can_be_searched_sorted_and_filtered() {
    let report = small().await;
    let mut page = report.open("");
    page.click("#search");
    page.type_text("TAG:server sync");
    assert_eq!(page.value(LISTED), json!(["exit", "orders-db"]));
    assert_eq!(
        page.value("document.querySelector('#count').textContent"),
        "2 of 5 devices"
    );
    page.click("[data-sort=name]");
    assert_eq!(page.value(LISTED), json!(["orders-db", "exit"]));
    let link = page.value("location.hash");
    assert_eq!(link, "#q=TAG%3Aserver+sync&down=");
    // The link shows the same, and a number at the top shows the devices that it counts.
    page.open(&report.page, link.as_str().unwrap());
    assert_eq!(page.value(LISTED), json!(["orders-db", "exit"]));
    page.click("[href='#show=unmanaged']");
    // The browser follows a link later than it is clicked.
    let unmanaged = json!([NAME, "amelie-laptop"]);
    until(&mut page, LISTED, &unmanaged).await;
    page.open(&report.page, "#show=exits");
    assert_eq!(page.value(LISTED), json!(["exit"]));
    page.open(&report.page, "#q=nothing+like+it");
    assert_eq!(
        page.value("document.querySelector('#nothing').hidden"),
        false
    );
}

#[tokio::test]
async fn the_page_is_dark_if_the_reader_prefers_it_and_fits_on_a_phone() {
    let report = small().await;
    let mut page = report.open("");
    let back = "getComputedStyle(document.body).backgroundColor";
    let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    page.prefer("light");
    assert_eq!(page.value(back), "rgb(255, 255, 255)");
    page.prefer("dark");
    assert_eq!(page.value(back), "rgb(18, 22, 28)");
    for width in [360, 768, 1160, 1200] {
        page.resize(width, 800);
        assert_eq!(page.value(overflow), 0, "{width}");
    }
    page.resize(360, 800);
    // Without titles each value has its own.
    let title = "getComputedStyle(document.querySelector('#devices thead')).display";
    let label = "getComputedStyle(document.querySelector('#devices td'), '::before').content";
    assert_eq!(page.value(title), "none");
    assert_eq!(page.value(label), "\"Device\"");
}

#[tokio::test]
async fn the_page_loads_nothing_and_runs_nothing_else() {
    let report = small().await;
    let mut page = report.open("#q=script");
    assert_eq!(page.value(LISTED), json!([NAME]));
    assert_eq!(
        page.value("document.querySelectorAll('#devices script, main script').length"),
        0
    );
    assert_eq!(page.events("Network.requestWillBeSent").len(), 1);
    assert_eq!(page.events("Log.entryAdded"), Vec::<&Value>::new());
    assert_eq!(page.events("Runtime.exceptionThrown"), Vec::<&Value>::new());
    assert_eq!(
        page.events("Page.javascriptDialogOpening"),
        Vec::<&Value>::new()
    );
    // The policy of the page refuses whatever is not its own.
    page.value(
        "(() => { window.refused = 0; document.addEventListener('securitypolicyviolation', () => window.refused++); \
         const image = new Image(); image.src = 'http://127.0.0.1:1/'; \
         const script = document.createElement('script'); script.textContent = 'window.foreign = 1'; \
         document.body.append(image, script); })()",
    );
    until(&mut page, "window.refused", &json!(2)).await;
    assert_eq!(page.value("window.foreign || 0"), 0);
    let text = report.text();
    assert!(!text.contains(API_KEY) && !text.contains(NAME));
    assert!(
        !text.contains(&report.tailnet.simulator.url()),
        "the address of the API"
    );
}

/// Writing a row for each of ten thousand devices takes a browser seconds. So the page has them as data, and few nodes.
#[tokio::test]
async fn ten_thousand_devices_are_a_small_page() {
    let policies = policy(
        "servers",
        "deviceSelector: {tags: ['tag:server']}, keyExpiry: Enabled",
    ) + &policy(
        "routers",
        "deviceSelector: {tags: ['tag:router']}, enabledRoutes: []",
    );
    let report = Report::of(simulator::generate(10_000, 1), &policies).await;
    let size = report.text().len();
    assert!(size < 6_000_000, "{size} bytes");
    let mut page = report.open("");
    let nodes = page.nodes();
    assert!(nodes < 40_000.0, "{nodes} nodes");
    assert_eq!(
        page.value("document.querySelectorAll('#devices tbody tr').length"),
        200
    );
    page.click("#more");
    assert_eq!(
        page.value("document.querySelectorAll('#devices tbody tr').length"),
        400
    );
    if let Ok(folder) = std::env::var("TSDP_PICTURES") {
        let loaded = page.value("performance.getEntriesByType('navigation')[0].loadEventEnd");
        println!("{size} bytes, {nodes} nodes, loaded after {loaded} ms");
        page.picture(&PathBuf::from(folder).join("ten-thousand.png"));
    }
}

#[tokio::test]
async fn a_report_without_policies_shows_what_is_observed() {
    let tailnet = Tailnet::demo().await;
    let page = tailnet.run(&["report"]).await.ok();
    assert!(page.contains("without policies") && !page.contains("id=\"policies\""));
    assert!(page.contains("fra-router"));
    let ran = tailnet.run(&["report", "-f", "nowhere"]).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(tailnet.requests(), ["GET /tailnet/-/devices?fields=all"]);
}

/// Without a rule, a tailnet allows only policies of the controller's own namespace.
#[tokio::test]
async fn a_device_whose_policy_is_denied_is_not_shown_as_in_sync() {
    let tailnet = "---\n{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: default}, spec: \
                   {credentialsSecret: {name: a}}}\n";
    let policies = policy(
        "servers",
        "deviceSelector: {tags: ['tag:server']}, keyExpiry: Enabled",
    );
    let device = json!({"hostname": "db", "name": "db.tail1.ts.net", "tags": ["tag:server"]});
    let report = Report::of(vec![device], &(policies + tailnet)).await;
    let mut page = report.open("");
    let row = row(&mut page, "db");
    assert!(row.contains("denied") && !row.contains("in sync"), "{row}");
}
