//! An HTTP server for untrusted peers: bounded in connections, bytes and time.
//!
//! A peer that sends half a request, or sends it byte by byte, costs a connection and a small
//! buffer for a few seconds. When all connections are in use, the oldest one is closed for the
//! next: a real request takes milliseconds, so it is hardly ever the oldest.

use std::{collections::VecDeque, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// For the head of a request, all its headers included.
const MAX_HEAD: usize = 16 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection as a whole: one request, its body and the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Before the next connection is accepted after that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one request for each connection until `stop` is cancelled.
pub(in crate::controller) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) {
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => connections.begin(stream, &router),
            Err(error) => {
                warn!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open, the oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    order: VecDeque<AbortHandle>,
}

impl Connections {
    fn begin(&mut self, stream: TcpStream, router: &Router) {
        // Removes the tasks that have ended, which the set would otherwise keep.
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|connection| !connection.is_finished());
        while self.order.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        let connection = connection(stream, router.clone());
        self.order.push_back(self.tasks.spawn(connection));
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        // An idle connection would occupy one of the few places.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a connection ended early: {error}"),
        Err(_) => debug!("a connection took too long"),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    async fn served() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "ok" }));
        tokio::spawn(serve(listener, router, CancellationToken::new()));
        address
    }

    async fn ask(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_is_answered_while_hundreds_of_others_are_half_sent() {
        let address = served().await;
        let mut half_sent = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
            half_sent.push(stream);
        }
        let start = Instant::now();
        assert!(ask(address).await.ends_with("ok"));
        assert!(start.elapsed() < Duration::from_secs(2));
        // Those that lost their place are closed, and the others in time.
        for mut stream in half_sent {
            let mut rest = Vec::new();
            let closed = timeout(HEAD_TIMEOUT * 2, stream.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "a half-sent request is still open");
        }
    }

    #[tokio::test]
    async fn too_large_request_head_is_refused() {
        let address = served().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nlarge: {}\r\n", "x".repeat(2 * MAX_HEAD));
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = String::new();
        let _ = timeout(HEAD_TIMEOUT * 2, stream.read_to_string(&mut answer)).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}
