//! Spans for OpenTelemetry: polls, plans, requests, and writes of a status.
//!
//! Each span is made when its work has ended, from the duration that the metrics have too, so no work waits for one. The
//! spans have names, counts, and outcomes: no value that a request carries. Without a collector they go nowhere.

mod collector;
mod sender;

use std::time::{Duration, SystemTime};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

use crate::tailscale::{Endpoint, Observation};

pub use collector::Collector;

/// The name of the instrumentation scope.
const SCOPE: &str = "tsdp";

/// A request to the Tailscale API has ended. One for the list of devices is the request of a poll.
pub fn requested(tailnet: &str, seen: &Observation) {
    let (tracer, ended) = (global::tracer(SCOPE), SystemTime::now());
    let context = match seen.endpoint {
        Endpoint::Devices => {
            let poll = span("poll", seen.duration, ended, of(tailnet));
            Context::new().with_span(tracer.build_with_context(poll, &Context::new()))
        }
        _ => Context::new(),
    };
    let mut attributes = of(tailnet);
    attributes.push(KeyValue::new("tsdp.endpoint", seen.endpoint.as_str()));
    if let Some(status) = seen.status {
        attributes.push(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
    }
    if let Some(id) = &seen.request_id {
        attributes.push(KeyValue::new("tsdp.request_id", id.clone()));
    }
    let request = span("request", seen.duration, ended, attributes).with_kind(SpanKind::Client);
    let mut request = tracer.build_with_context(request, &context);
    if seen.failure.is_some() {
        request.set_status(Status::error("failed"));
        context.span().set_status(Status::error("failed"));
    }
    request.end_with_timestamp(ended);
    context.span().end_with_timestamp(ended);
}

/// A step of the engine has ended.
pub fn planned(tailnet: &str, took: Duration) {
    end("plan", took, of(tailnet), true);
}

/// A status was written, or was not.
pub fn wrote_status(kind: &str, namespace: &str, name: &str, took: Duration, is_written: bool) {
    let attributes = vec![
        KeyValue::new("k8s.object.kind", kind.to_owned()),
        KeyValue::new("k8s.namespace.name", namespace.to_owned()),
        KeyValue::new("k8s.object.name", name.to_owned()),
    ];
    end("status write", took, attributes, is_written);
}

fn of(tailnet: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("tsdp.tailnet", tailnet.to_owned())]
}

fn span(
    name: &'static str,
    took: Duration,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
) -> SpanBuilder {
    let began = ended.checked_sub(took).unwrap_or(ended);
    SpanBuilder::from_name(name)
        .with_start_time(began)
        .with_attributes(attributes)
}

fn end(name: &'static str, took: Duration, attributes: Vec<KeyValue>, is_success: bool) {
    let ended = SystemTime::now();
    let span = span(name, took, ended, attributes);
    let mut span = global::tracer(SCOPE).build_with_context(span, &Context::new());
    if !is_success {
        span.set_status(Status::error("failed"));
    }
    span.end_with_timestamp(ended);
}
