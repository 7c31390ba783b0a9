//! Traces of OpenTelemetry, as a collector gets them.

use std::time::Duration;

use tsdp::simulator::{FaultKind, FaultSpec};

use crate::support::{Collector, Controller, Span, Stage, eventually};

const POLICY: &str = "{device: {hostname: nas}, keyExpiry: Disabled}";

async fn traced(stage: &Stage, collector: &str, more: &[(&str, &str)]) -> Controller {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    let env = [&env, more].concat();
    Controller::ready(stage.kubeconfig(), &[], &env).await
}

/// Waits for a span with these attributes.
async fn has(collector: &Collector, name: &str, attributes: &[(&str, &str)]) -> Span {
    eventually(Duration::from_secs(20), async || {
        let (_, spans) = collector.resources_and_spans();
        let fits = |span: &&Span| {
            let has = |(key, value): &(&str, &str)| {
                let mut own = span.attributes.iter();
                own.any(|(own, of)| own == key && of == value)
            };
            span.name == name && attributes.iter().all(has)
        };
        let found = spans.iter().find(fits).cloned();
        found.ok_or_else(|| format!("no {name} with {attributes:?} among {spans:#?}"))
    })
    .await
}

#[tokio::test]
async fn polls_plans_requests_and_status_writes_are_spans_at_the_collector() {
    let (stage, collector) = (Stage::new().await, Collector::start().await);
    let more = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=net%20ops"),
        ("OTEL_SERVICE_NAME", "tsdp-fra"),
    ];
    let controller = traced(&stage, collector.url(), &more).await;
    stage.policy("nas", POLICY).await;
    stage.policy_reason("nas", "InSync").await;

    let tailnet = ("tsdp.tailnet", "default");
    let ok = ("http.response.status_code", "200");
    let poll = has(&collector, "poll", &[tailnet]).await;
    let list = has(
        &collector,
        "request",
        &[tailnet, ("tsdp.endpoint", "devices"), ok],
    )
    .await;
    let (_, spans) = collector.resources_and_spans();
    let is_of_a_poll = spans
        .iter()
        .any(|span| span.name == "poll" && span.trace == list.trace && span.id == list.parent);
    assert!(is_of_a_poll && poll.parent.is_empty(), "{list:?}");
    let write = has(
        &collector,
        "request",
        &[tailnet, ("tsdp.endpoint", "set_key_expiry_disabled")],
    )
    .await;
    let has_id = |span: &Span| {
        span.attributes
            .iter()
            .any(|(key, _)| key == "tsdp.request_id")
    };
    assert!(
        has_id(&write) && write.parent.is_empty() && !write.failed,
        "{write:?}"
    );
    has(&collector, "plan", &[tailnet]).await;
    let policy = [
        ("k8s.object.kind", "TailscaleDevicePolicy"),
        ("k8s.namespace.name", "network"),
        ("k8s.object.name", "nas"),
    ];
    assert!(!has(&collector, "status write", &policy).await.failed);
    has(
        &collector,
        "status write",
        &[("k8s.object.kind", "TailscaleTailnet")],
    )
    .await;

    let mut html = FaultSpec::new(FaultKind::Html);
    html.path = Some("/api/v2/tailnet/*/devices".to_owned());
    stage.simulator.inject(html).unwrap();
    let failed = has(
        &collector,
        "request",
        &[("http.response.status_code", "502")],
    )
    .await;
    assert!(failed.failed, "{failed:?}");

    let (resources, _) = collector.resources_and_spans();
    let names = resources.iter().map(ToString::to_string);
    for resource in names {
        assert!(resource.contains("tsdp-fra"), "{resource}");
    }
    let exports = collector.exports();
    let header = |name: &str| exports[0].headers[name].to_str().unwrap();
    assert_eq!(header("x-team"), "net ops");
    assert_eq!(header("content-type"), "application/json");
    // The last spans are sent at the end.
    let mut controller = controller;
    controller.terminate().await;
    assert!(controller.ended().await.success());
}

#[tokio::test]
async fn protobuf_is_the_default_protocol() {
    let (stage, collector) = (Stage::new().await, Collector::start().await);
    let _controller = traced(&stage, collector.url(), &[]).await;
    let kind = eventually(Duration::from_secs(20), async || {
        let exports = collector.exports();
        let has_poll = |body: &[u8]| body.windows(4).any(|it| it == b"poll");
        let found = exports.iter().find(|export| has_poll(&export.body));
        found
            .map(|it| it.headers["content-type"].clone())
            .ok_or("no poll")
    })
    .await;
    assert_eq!(kind, "application/x-protobuf");
}

#[tokio::test]
async fn a_dead_collector_is_one_warning_and_delays_nothing() {
    let stage = Stage::new().await;
    let mut controller = traced(&stage, "http://127.0.0.1:1", &[]).await;
    stage.policy("nas", POLICY).await;
    stage.policy_reason("nas", "InSync").await;
    let lost = "OpenTelemetry: spans are lost: cannot connect to 127.0.0.1:1: ";
    controller.logs(lost).await;
    stage.polls(4).await;
    assert_eq!(
        controller.log().matches(lost).count(),
        1,
        "{}",
        controller.log()
    );
    let begin = std::time::Instant::now();
    controller.terminate().await;
    assert!(controller.ended().await.success());
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_protocol_that_is_not_supported_is_logged_and_stops_nothing() {
    let stage = Stage::new().await;
    let grpc = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let controller = traced(&stage, "http://127.0.0.1:4317", &grpc).await;
    let why = "OpenTelemetry: no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL: found 'grpc', expected http/protobuf or http/json.";
    controller.logs(why).await;
    stage.policy("nas", POLICY).await;
    stage.policy_reason("nas", "InSync").await;
}
