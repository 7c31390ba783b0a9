//! The OpenTelemetry collector that the environment names.

use std::{env, time::Duration};

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, Protocol, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{info, warn};

use super::sender::Sender;

/// How long the last spans may take when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// Why there are no traces. Devices are kept in sync nevertheless.
#[derive(Debug, thiserror::Error)]
enum CollectorError {
    #[error(
        "OTEL_EXPORTER_OTLP_PROTOCOL: found '{0}', expected http/protobuf or http/json. Write one of them, \
         and the port for HTTP (4318 by default)"
    )]
    Protocol(String),
    #[error(transparent)]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// Sends the spans of this process on a thread of its own.
pub struct Collector(Option<SdkTracerProvider>);

impl Collector {
    /// Starts to send, if the environment names a collector. A wrong variable is logged: it must not keep the controller
    /// from its work.
    pub fn of_environment() -> Self {
        if !is_wanted() {
            return Self(None);
        }
        match provider() {
            Ok(provider) => {
                info!("OpenTelemetry: spans are sent to the collector");
                global::set_tracer_provider(provider.clone());
                Self(Some(provider))
            }
            Err(error) => {
                warn!("OpenTelemetry: no spans are sent: {error}");
                Self(None)
            }
        }
    }

    /// Sends the last spans, for a moment.
    pub async fn close(self) {
        let Some(provider) = self.0 else { return };
        // It waits for its thread, which needs this runtime.
        let close = move || provider.shutdown_with_timeout(LAST);
        // The last spans are not worth an error at the end.
        let _ = tokio::task::spawn_blocking(close).await;
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn first(names: [&str; 2]) -> Option<String> {
    names.into_iter().find_map(variable)
}

fn is_wanted() -> bool {
    let is = |name: &str, value: &str| {
        variable(name).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
    };
    let endpoint = first([
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
        OTEL_EXPORTER_OTLP_ENDPOINT,
    ]);
    endpoint.is_some() && !is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none")
}

fn provider() -> Result<SdkTracerProvider, CollectorError> {
    let protocol = first([
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
        OTEL_EXPORTER_OTLP_PROTOCOL,
    ]);
    let protocol = match protocol.as_deref() {
        // As OpenTelemetry prescribes. The library prefers JSON.
        None | Some("http/protobuf") => Protocol::HttpBinary,
        Some("http/json") => Protocol::HttpJson,
        Some(other) => return Err(CollectorError::Protocol(other.to_owned())),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(protocol)
        .with_http_client(Sender::new()?)
        .build()?;
    Ok(SdkTracerProvider::builder()
        .with_resource(resource())
        .with_batch_exporter(exporter)
        .build())
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, with a name if they have none.
fn resource() -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|it| it.contains("service.name="));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    if named {
        resource.build()
    } else {
        resource.with_service_name("tsdp").build()
    }
}
