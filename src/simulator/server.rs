//! HTTP/1.1 connections, which a fault can close in the middle of a response.

use std::{io, time::Duration};

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::{Request as HttpRequest, Response, header::CONTENT_LENGTH, response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    path::Target,
    response::Answer,
    service::{Delivery, Request, Shared, serve},
};

/// Larger than any request to this API.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Accepts connections until `stop` is cancelled. That also closes open ones.
pub(super) async fn run(listener: TcpListener, shared: Shared, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = converse(stream, shared.clone());
                // An idle connection with keep-alive would otherwise hold its port after the end.
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(connection).await });
            }
            // Most likely out of file descriptors: closed connections free some.
            Err(error) => {
                tracing::warn!(%error, "the simulator cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, shared: Shared) {
    // Otherwise a small response may wait for the client's delayed acknowledgement. A failure only costs
    // that wait.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(request, &shared));
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the simulator broke off");
    }
}

/// An error makes hyper close the connection, whatever was sent by then.
async fn respond(
    request: HttpRequest<Incoming>,
    shared: &Shared,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), MAX_BODY_BYTES).await;
    let request = Request {
        method: parts.method,
        target: Target::of(&parts.uri),
        headers: parts.headers,
        body: body.map_err(io::Error::other)?,
    };
    match serve(shared, request).await {
        Delivery::Whole(mut answer) => {
            let body = std::mem::take(&mut answer.body);
            head_of(&answer).body(body.into()).map_err(io::Error::other)
        }
        Delivery::Truncated(answer) => {
            // At least 1, so that an empty body can break off too.
            let promised = answer.body.len().max(1);
            let head = head_of(&answer).header(CONTENT_LENGTH, promised);
            head.body(half_of(&answer.body)).map_err(io::Error::other)
        }
        // hyper closes the connection without a status: the client cannot tell what happened.
        Delivery::Nothing => Err(io::Error::other("the fault asks for no answer")),
    }
}

fn head_of(answer: &Answer) -> response::Builder {
    let head = Response::builder().status(answer.status);
    let headers = answer.headers.iter();
    headers.fold(head, |head, (name, value)| head.header(name, value))
}

/// The first half of a body, then an error at which hyper closes the connection.
fn half_of(body: &[u8]) -> Body {
    let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
    let end = async {
        // hyper flushes its buffer when the body is pending. At an error it drops the buffer.
        tokio::task::yield_now().await;
        Err(io::Error::other("the fault asks for half of the answer"))
    };
    Body::from_stream(stream::iter([Ok(half)]).chain(stream::once(end)))
}
