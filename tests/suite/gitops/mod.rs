//! How Argo CD and Flux read the status of every state: deploy/gitops and docs/gitops.md.

mod argocd;
mod flux;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tokio::process::Command;
use tsdp::local::Binaries;

use crate::support::{assert_generated, condition};
pub use argocd::recorded;
use argocd::{HealthTest, HealthTests, health};
use flux::{Expressions, broken_rule, kstatus};

const HEALTH_LUA: &str = "resource_customizations/tailnet.dev/_/health.lua";
/// From the root of the repository.
const HEALTH_TESTS: &str =
    "deploy/gitops/argocd/resource_customizations/tailnet.dev/_/health_test.yaml";

/// The kinds that the health checks are for.
const KINDS: [&str; 3] = [
    "TailscaleDevicePolicy",
    "TailscaleTailnet",
    "TailscaleDeviceInvite",
];

#[test]
fn generated_health_tests_are_up_to_date() {
    let tests = argocd::recorded()
        .into_iter()
        .map(|(path, object)| HealthTest {
            health_status: health(&object),
            input_path: path,
        });
    let tests = HealthTests {
        tests: tests.collect(),
    };
    assert_generated(HEALTH_TESTS, &serde_yaml::to_string(&tests).unwrap());
}

/// A row of the table: the result of each tool for a state.
#[derive(Debug)]
struct Row {
    argocd: String,
    flux: String,
    flux_with_expressions: String,
}

/// The rows of the page's table, by reason.
fn documented() -> BTreeMap<String, Row> {
    let text = include_str!("../../../docs/gitops.md");
    let (_, section) = text.split_once("## What each state looks like").unwrap();
    let mut rows = BTreeMap::new();
    for line in section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
    {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        for reason in cells[2].split('`').skip(1).step_by(2) {
            let row = Row {
                argocd: cells[3].to_owned(),
                flux: cells[4].to_owned(),
                flux_with_expressions: cells[5].to_owned(),
            };
            let twice = rows.insert(reason.to_owned(), row);
            assert!(twice.is_none(), "{reason} is in two rows");
        }
    }
    rows
}

/// The recorded states of reconciled objects, with the reason of their Ready.
fn judged() -> impl Iterator<Item = (String, String, Value)> {
    argocd::recorded().into_iter().filter_map(|(path, object)| {
        let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let reason = condition(&object, "Ready")?["reason"].as_str()?.to_owned();
        (is_current && object["spec"]["suspend"] != true).then_some((path, reason, object))
    })
}

#[test]
fn each_state_has_the_health_that_the_page_documents() {
    let mut rows = documented();
    let expressions = Expressions::of_the_example();
    let mut seen = Vec::new();
    for (path, reason, object) in judged() {
        let row = rows
            .get(&reason)
            .unwrap_or_else(|| panic!("docs/gitops.md has no row for {reason}"));
        assert_eq!(health(&object).status, row.argocd, "Argo CD on {path}");
        assert_eq!(kstatus(&object), row.flux, "kstatus on {path}");
        let of_kind = expressions.iter().find(|it| object["kind"] == it.kind);
        assert_eq!(
            of_kind.unwrap().evaluate(&object).as_deref(),
            Ok(row.flux_with_expressions.as_str()),
            "Flux's expressions on {path}"
        );
        assert_eq!(broken_rule(&object), None, "{path}");
        seen.push(reason);
    }
    rows.retain(|reason, _| !seen.contains(reason));
    assert!(rows.is_empty(), "no state has these reasons: {rows:?}");
}

#[test]
fn an_object_that_was_never_reconciled_is_in_progress() {
    let expressions = &Expressions::of_the_example()[0];
    for (path, mut object) in argocd::recorded() {
        object["spec"]["suspend"] = json!(false);
        object["metadata"]["generation"] = json!(4);
        let without_status = object["status"].is_null();
        assert_eq!(health(&object).status, "Progressing", "Argo CD on {path}");
        // Without a status kstatus has nothing to wait for: hence the default of the CRD.
        let expected = if without_status {
            "Current"
        } else {
            "InProgress"
        };
        assert_eq!(kstatus(&object), expected, "kstatus on {path}");
        if without_status {
            expressions.evaluate(&object).unwrap_err();
        } else {
            assert_eq!(expressions.evaluate(&object), Ok("InProgress"), "{path}");
        }
    }
}

#[test]
fn the_default_status_of_each_crd_is_in_progress() {
    for definition in tsdp::api::schema::definitions() {
        let definition = json!(definition);
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let created = json!({
            "metadata": {"generation": 1},
            "spec": {},
            "status": schema["properties"]["status"]["default"],
        });
        let kind = &definition["spec"]["names"]["kind"];
        assert_eq!(kstatus(&created), "InProgress", "{kind}");
        assert_eq!(health(&created).status, "Progressing", "{kind}");
    }
}

#[test]
fn suspended_object_is_suspended_in_argo_cd_whatever_its_status() {
    for (path, mut object) in argocd::recorded() {
        object["spec"]["suspend"] = json!(true);
        assert_eq!(health(&object).status, "Suspended", "{path}");
    }
}

#[test]
fn an_object_that_is_being_deleted_is_terminating_for_flux() {
    for (path, mut object) in argocd::recorded() {
        object["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z");
        assert_eq!(kstatus(&object), "Terminating", "{path}");
    }
}

#[test]
fn flux_has_expressions_for_each_kind() {
    let expressions = Expressions::of_the_example();
    let kinds: Vec<_> = expressions.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, KINDS);
    assert!(
        expressions
            .iter()
            .all(|it| it.api_version == "tailnet.dev/v1alpha1")
    );
}

#[tokio::test]
async fn the_kustomize_component_adds_the_script_for_each_kind_and_keeps_what_is_there() {
    let overlay = tempfile::tempdir().unwrap();
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/gitops/argocd");
    for file in ["kustomization.yaml", HEALTH_LUA] {
        let copy = overlay.path().join("tsdp").join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(component.join(file), copy).unwrap();
    }
    let installed = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\n\
                     data: {url: https://argocd.example.com}\n";
    fs::write(overlay.path().join("argocd-cm.yaml"), installed).unwrap();
    let kustomization = "namespace: argocd\nresources: [argocd-cm.yaml]\ncomponents: [tsdp]\n";
    fs::write(overlay.path().join("kustomization.yaml"), kustomization).unwrap();

    let binaries = Binaries::find_or_build().await.unwrap();
    let output = Command::new(&binaries.kubectl)
        .arg("kustomize")
        .arg(overlay.path())
        .output()
        .await
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let built: Value = serde_yaml::from_slice(&output.stdout).unwrap();

    let mut expected = json!({"url": "https://argocd.example.com"});
    for kind in KINDS {
        let key = format!("resource.customizations.health.tailnet.dev_{kind}");
        expected[key] = json!(argocd::script());
    }
    assert_eq!(built["data"], expected);
    assert_eq!(built["metadata"]["name"], "argocd-cm");
}
