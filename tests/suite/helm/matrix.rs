//! A real API server accepts the objects of the chart with every kind of values, in a namespace that admits only pods
//! of the standard `restricted`.

use serde_json::{Value, json};

use crate::support::{CHART, Helm, Kubectl, control_plane};

/// Values, and words that the objects must have with them.
const VALUES: &[(&str, &[&str])] = &[
    ("", &["\"replicas\":1", "ghcr.io/tailnet-dev/tsdp:"]),
    (
        "{replicas: 2, podDisruptionBudget: {enabled: true, maxUnavailable: 50%}, \
         topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}",
        &[
            "\"maxUnavailable\":\"50%\"",
            "\"labelSelector\":{\"matchLabels\":{\"app.kubernetes.io/instance\":\"tsdp\"",
        ],
    ),
    (
        "{image: {repository: registry.example.com/tsdp, digest: \
         'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef', pullPolicy: Always}, \
         imagePullSecrets: [{name: registry}]}",
        &[
            "registry.example.com/tsdp@sha256:0123",
            "\"imagePullSecrets\"",
        ],
    ),
    (
        "{policyNamespaces: [network, lab], leaderElection: {leaseDuration: 30}, clearTimeout: 60, \
         log: {level: debug, format: json}, extraArgs: [--tailnet-from-env]}",
        &[
            "\"--policy-namespaces=network,lab\"",
            "\"--lease-duration=30\"",
            "\"--clear-timeout=60\"",
            "\"--log=debug\",\"--log-format=json\",\"--tailnet-from-env\"",
        ],
    ),
    (
        "{invites: {enabled: true, secretNamespaces: [network]}}",
        &[
            "\"--invites\"",
            "\"name\":\"tsdp-invite-secrets\",\"namespace\":\"network\"",
        ],
    ),
    (
        "{webhook: {enabled: true, port: 9000, service: {type: LoadBalancer, port: 443}}, \
         networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {}}], \
         webhookFrom: [{ipBlock: {cidr: 10.0.0.0/8}}], \
         extraEgress: [{ports: [{port: 3128, protocol: TCP}]}]}}",
        &[
            "--webhook-listen=0.0.0.0:9000",
            "\"kind\":\"NetworkPolicy\"",
            "3128",
        ],
    ),
    (
        "{monitoring: {serviceMonitor: {enabled: true, labels: {release: prometheus}}, \
         podMonitor: {enabled: true}, rules: {enabled: true}, dashboard: {enabled: true, annotations: {folder: Networks}}}}",
        &[
            "\"kind\":\"ServiceMonitor\"",
            "\"kind\":\"PodMonitor\"",
            "{{ $labels.tailnet }}",
            "\"grafana_dashboard\":\"1\"",
        ],
    ),
    (
        "{credentials: {create: true, secretName: keys, data: {client_id: a, client_secret: b}}, \
         tailnet: {create: true, name: lab, spec: {pollInterval: 2m, allowedPolicies: []}}}",
        &[
            "\"credentialsSecret\":{\"name\":\"keys\"}",
            "\"stringData\":{\"client_id\":\"a\"",
            "\"allowedPolicies\":[]",
        ],
    ),
    (
        "{fullnameOverride: keeper, serviceAccount: {name: keeper-account, annotations: {a: b}}, \
         commonLabels: {team: network}, podLabels: {mesh: 'off'}, podAnnotations: {c: d}, \
         deploymentAnnotations: {e: f}, priorityClassName: system-cluster-critical, nodeSelector: {g: h}, \
         tolerations: [{operator: Exists}], extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}], \
         extraEnvFrom: [{secretRef: {name: more}}], extraVolumes: [{name: certificates, secret: {secretName: ca}}], \
         extraVolumeMounts: [{name: certificates, mountPath: /certificates}]}",
        &[
            "\"resourceNames\":[\"keeper-account\"]",
            "\"team\":\"network\"",
            "\"mountPath\":\"/certificates\"",
            "\"name\":\"HTTPS_PROXY\"",
        ],
    ),
    (
        "{crds: {install: false}, rbac: {create: false}, serviceAccount: {create: false, name: given}}",
        &["\"serviceAccountName\":\"given\""],
    ),
];

/// Kinds of the Prometheus Operator, without their schema.
fn of_prometheus(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.monitoring.coreos.com"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

async fn prepare(kubectl: &Kubectl) {
    let root = env!("CARGO_MANIFEST_DIR");
    for kind in [
        of_prometheus("ServiceMonitor", "servicemonitors"),
        of_prometheus("PodMonitor", "podmonitors"),
        of_prometheus("PrometheusRule", "prometheusrules"),
    ] {
        kubectl.apply(&kind.to_string()).await;
    }
    let namespace = format!("{root}/deploy/namespace.yaml");
    kubectl.ok(&["apply", "-f", &namespace]).await;
    kubectl.ok(&["create", "namespace", "network"]).await;
    let crds = format!("{root}/crds");
    kubectl.ok(&["apply", "--server-side", "-k", &crds]).await;
    kubectl
        .wait_for("condition=Established", &["crd", "--all"])
        .await;
}

/// The pod that the Deployment would create.
fn pod(objects: &[Value]) -> Value {
    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "tsdp-0".into();
    pod["metadata"]["namespace"] = "tsdp-system".into();
    // Admission refuses pods of a service account that does not exist, and the chart is not installed.
    pod["spec"]["serviceAccountName"] = "default".into();
    // There is no scheduler, and the class is one of the cluster.
    pod["spec"]["priorityClassName"].take();
    pod
}

#[tokio::test]
async fn the_api_server_accepts_the_chart_with_every_kind_of_values() {
    let control_plane = control_plane().await;
    let (kubectl, helm) = (Kubectl::admin(&control_plane), Helm::new());
    prepare(&kubectl).await;
    let account =
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: tsdp-system}}";
    kubectl.apply(account).await;
    let dry_run = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--force-conflicts",
        "--validate=strict",
        "-f",
        "-",
    ];
    for (values, words) in VALUES {
        helm.ok(&["lint", "--strict", CHART], values).await;
        let mut objects = helm.objects(values).await;
        let text = Value::from(objects.clone()).to_string();
        for words in *words {
            assert!(text.contains(words), "{values} has no {words}: {text}");
        }
        objects.push(pod(&objects));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let output = kubectl.run(&dry_run, &list).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{values}: {error}");
        // A pod that violates the standard is refused; a Deployment only gets a warning.
        assert!(
            !error.contains("would violate PodSecurity"),
            "{values}: {error}"
        );
    }
}

#[tokio::test]
async fn without_crds_and_roles_the_chart_has_none() {
    let values = "{crds: {install: false}, rbac: {create: false}, serviceAccount: {create: false, name: given}}";
    let objects = Helm::new().objects(values).await;
    let kinds: Vec<&str> = objects
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Deployment"]);
    let kept = "{crds: {keep: false}}";
    let text = Value::from(Helm::new().objects(kept).await).to_string();
    assert!(!text.contains("helm.sh/resource-policy"), "{text}");
}
