//! Health and metrics over HTTP.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{http_server, metrics::Metrics};
use crate::controller::watch::readiness::Readiness;

/// Serves until `stop` is cancelled; returns the address once it is bound.
pub(in crate::controller) async fn serve(
    address: SocketAddr,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "serving /healthz, /readyz and /metrics");
    let router = Router::new()
        // Liveness is only whether the process answers: a restart fixes no outage of an API.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { ready(&readiness) }))
        .route(
            "/metrics",
            get(move || async move {
                let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(CONTENT_TYPE, text)], metrics.encode())
            }),
        );
    tokio::spawn(http_server::serve(listener, router, stop));
    Ok(address)
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    let obstacles = readiness.obstacles();
    if obstacles.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n")
    }
}
