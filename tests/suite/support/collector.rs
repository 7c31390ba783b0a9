use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// A request for `/v1/traces`.
#[derive(Clone)]
pub struct Export {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An OpenTelemetry collector that keeps what it gets.
pub struct Collector {
    url: String,
    exports: Arc<Mutex<Vec<Export>>>,
    server: JoinHandle<()>,
}

/// A span, as people read it in a trace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: Vec<(String, String)>,
    pub failed: bool,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let exports = Arc::<Mutex<Vec<Export>>>::default();
        let keep = async |State(exports): State<Arc<Mutex<Vec<Export>>>>,
                          headers: HeaderMap,
                          body: Bytes| {
            exports.lock().unwrap().push(Export { headers, body });
            "{}"
        };
        let routes = Router::new().route("/v1/traces", post(keep));
        let routes = routes.with_state(Arc::clone(&exports));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            url,
            exports,
            server,
        }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap().clone()
    }

    /// The resources and spans of all exports in JSON.
    pub fn resources_and_spans(&self) -> (Vec<Value>, Vec<Span>) {
        let (mut resources, mut spans) = (Vec::new(), Vec::new());
        for export in self.exports() {
            let body: Value = serde_json::from_slice(&export.body).unwrap();
            for of_resource in list(&body["resourceSpans"]) {
                resources.push(of_resource["resource"].clone());
                for of_scope in list(&of_resource["scopeSpans"]) {
                    spans.extend(list(&of_scope["spans"]).iter().map(span));
                }
            }
        }
        (resources, spans)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn span(span: &Value) -> Span {
    let text = |field: &str| span[field].as_str().unwrap_or_default().to_owned();
    let attribute = |it: &Value| {
        let value = it["value"].as_object().unwrap().values().next().unwrap();
        let value = value.as_str().map_or(value.to_string(), str::to_owned);
        (it["key"].as_str().unwrap().to_owned(), value)
    };
    let (began, ended): (u64, u64) = (
        text("startTimeUnixNano").parse().unwrap(),
        text("endTimeUnixNano").parse().unwrap(),
    );
    assert!(began <= ended, "{span}");
    Span {
        name: text("name"),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        attributes: list(&span["attributes"]).iter().map(attribute).collect(),
        failed: span["status"]["code"] == 2,
    }
}
