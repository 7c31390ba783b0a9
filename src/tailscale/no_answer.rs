//! Why there was no complete answer: where the connection went, and what failed there.

use std::{error::Error as _, time::Duration};

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

/// No connection, or no answer. `within`: how long the request waited at most.
pub fn unanswered(error: &reqwest::Error, within: Duration) -> String {
    let (server, cause) = (server(error), cause(error));
    let seconds = within.as_secs_f64();
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => format!("cannot connect to {server}: no connection in time"),
        (true, false) => format!("cannot connect to {server}: {cause}"),
        (false, true) => format!("no answer from {server} within {seconds} s"),
        (false, false) => format!("the connection to {server} broke off: {cause}"),
    }
}

/// The answer has begun, and its end is missing.
pub(super) fn cut_off(error: &reqwest::Error) -> String {
    let (server, cause) = (server(error), cause(error));
    if error.is_timeout() {
        return format!("the answer of {server} did not end in time");
    }
    format!("the answer of {server} broke off: {cause}")
}

/// The host and port of a request, and the proxy that it went through.
fn server(error: &reqwest::Error) -> String {
    let Some(url) = error.url() else {
        return "the API".to_owned();
    };
    let port = url.port_or_known_default();
    let server = match (url.host_str(), port) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "the API".to_owned(),
    };
    match proxy(url) {
        Some(proxy) => format!("{server} through the proxy {proxy}"),
        None => server,
    }
}

/// The proxy that the environment sets for a URL, without its password.
fn proxy(url: &Url) -> Option<String> {
    let destination: Uri = url.as_str().parse().ok()?;
    // As reqwest finds it.
    let proxy = Matcher::from_system().intercept(&destination)?;
    let (scheme, host) = (proxy.uri().scheme_str()?, proxy.uri().host()?);
    let port = proxy.uri().port().map(|port| format!(":{port}"));
    Some(format!("{scheme}://{host}{}", port.unwrap_or_default()))
}

/// reqwest reports "error sending request" and leaves the cause to its innermost source.
fn cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    // `Connection refused (os error 111)`
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
