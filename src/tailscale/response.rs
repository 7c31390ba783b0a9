//! The answer to a request, before its content is checked.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    endpoint::Endpoint,
    error::{Error, Kind},
    json::Mismatch,
};
use crate::model::{Device, UnreadableDevices};

/// A complete answer with a successful status.
pub(super) struct Answer {
    pub endpoint: Endpoint,
    pub request: String,
    pub status: StatusCode,
    pub request_id: Option<String>,
    pub body: Vec<u8>,
    /// The devices of a list; `body` is then everything outside of them.
    pub devices: Vec<Device>,
    /// The devices of a list whose identity cannot be read.
    pub skipped: UnreadableDevices,
    /// The server's clock when it answered.
    pub date: Option<Timestamp>,
    /// The secret that the request was sent with.
    pub secret: Option<SecretString>,
}

/// The longest pause that a server can request.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// How much of an unknown text goes into a message.
const EXCERPT_CHARS: usize = 300;

impl Answer {
    /// The error that the answer is not what the API returns, with the reason.
    pub fn unexpected(&self, why: &str) -> Error {
        Error {
            endpoint: self.endpoint,
            request: self.request.clone(),
            kind: Kind::UnexpectedAnswer,
            status: Some(self.status),
            // The reason may quote the body.
            message: excerpt(&scrub(why, self.secret.as_ref())),
            request_id: self.request_id.clone(),
            pause: None,
            unknown_outcome: true,
        }
    }

    /// The error that the answer is not what the API returns, with its body.
    pub fn unexpected_body(&self) -> Error {
        let body = scrub(&String::from_utf8_lossy(&self.body), self.secret.as_ref());
        self.unexpected(&describe(&body))
    }

    /// The error that the answer is not the JSON that the API returns.
    pub fn mismatched(&self, mismatch: &Mismatch) -> Error {
        // A web page or an empty body says more than the error of the JSON parser would.
        if self.is_html() || self.body.trim_ascii().is_empty() {
            return self.unexpected_body();
        }
        self.unexpected(&mismatch.to_string())
    }

    /// The error that an answer about one device has a content that cannot be read. Anything but an object is
    /// not of the API.
    pub fn unreadable(&self, mismatch: &Mismatch) -> Error {
        let is_object = serde_json::from_slice::<serde_json::Map<_, _>>(&self.body).is_ok();
        let error = self.mismatched(mismatch);
        if !is_object || !self.endpoint.is_read() {
            return error;
        }
        Error {
            kind: Kind::UnreadableDevice,
            ..error
        }
    }

    /// Whether it is a web page, as a proxy or a login portal returns it with a successful status.
    pub fn is_html(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }
}

/// The API's id of a request, without the secret that the request was sent with.
pub(super) fn request_id(headers: &HeaderMap, secret: Option<&SecretString>) -> Option<String> {
    let id = headers.get("x-tailscale-request-id")?.to_str().ok()?;
    // The header may have any length, and the id goes into messages.
    Some(scrub(id, secret).chars().take(100).collect())
}

/// The server's clock.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    Timestamp::try_from(time).ok()
}

/// The API's message in an error answer: `{"message": …}`, or the OAuth fields at the token endpoint. `None`
/// if the body is not the API's own.
pub(super) fn message(body: &str) -> Option<String> {
    let object: Value = serde_json::from_str(body).ok()?;
    ["message", "error_description", "error"]
        .into_iter()
        .filter_map(|key| object.get(key)?.as_str())
        .find(|text| !text.is_empty())
        .map(excerpt)
}

/// A short description of a body that is not the API's own.
pub(super) fn describe(body: &str) -> String {
    let body = body.trim();
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    if body.starts_with('<') {
        return match html_title(body) {
            Some(title) => format!("an HTML page '{}'", excerpt(title)),
            None => format!("an HTML page: {}", excerpt(body)),
        };
    }
    excerpt(body)
}

fn html_title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    Some(title.trim()).filter(|title| !title.is_empty())
}

/// One line of limited length, without control characters.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = line
        .chars()
        .filter(|c| !c.is_control())
        .take(EXCERPT_CHARS)
        .collect();
    if line.chars().count() > EXCERPT_CHARS {
        short.push('…');
    }
    short
}

/// Removes `secret` from a text of a server: some servers echo the request. Must run before the text is
/// shortened, or a part of the secret could remain.
pub(super) fn scrub(text: &str, secret: Option<&SecretString>) -> String {
    match secret.map(ExposeSecret::expose_secret) {
        // A few letters are no secret, and occur in any text.
        Some(secret) if secret.len() >= 8 => text.replace(secret, "[redacted]"),
        _ => text.to_owned(),
    }
}

/// The pause that the server requests (`Retry-After`, in seconds or as a date), at most five minutes.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::from(now))
            // A date in the past asks for no pause.
            .unwrap_or_default(),
    };
    // A server must not be able to stop a tailnet for hours.
    Some(pause.min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
        let seconds = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(seconds("57"), Some(57));
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:57 GMT"), Some(57));
        assert_eq!(seconds("Wed, 21 Oct 2026 07:27:00 GMT"), Some(0));
        assert_eq!(seconds("86400"), Some(300));
        assert_eq!(seconds("Thu, 22 Oct 2026 07:28:00 GMT"), Some(300));
        for odd in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_clock_of_the_server_is_read_if_it_is_valid() {
        let read = |text: &str| date(&HeaderMap::from_iter([(DATE, text.parse().unwrap())]));
        let time = read("Wed, 21 Oct 2026 07:28:57 GMT").map(|time| time.to_string());
        assert_eq!(time.as_deref(), Some("2026-10-21T07:28:57Z"));
        assert_eq!(read("yesterday"), None);
        assert_eq!(date(&HeaderMap::new()), None);
    }

    #[test]
    fn unknown_bodies_are_described_in_one_short_line() {
        assert_eq!(describe(" \n"), "an empty body");
        assert_eq!(
            describe("<html>\n<head><title>502 Bad\n Gateway</title></head></html>"),
            "an HTML page '502 Bad Gateway'"
        );
        let long = describe(&format!("<p>{}", "x\r\n\u{1b}[31m".repeat(9999)));
        assert!(
            long.chars().count() < 330 && !long.contains(char::is_control),
            "{long}"
        );
    }

    #[test]
    fn only_the_fields_of_the_api_are_a_message() {
        assert_eq!(
            message(r#"{"message":"API token invalid"}"#).unwrap(),
            "API token invalid"
        );
        assert_eq!(
            message(r#"{"error":"invalid_client","error_description":"no such client"}"#).unwrap(),
            "no such client"
        );
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"message":1}"#,
            r#"{"message":"cut"#,
            "<html>",
        ] {
            assert_eq!(message(body), None, "{body}");
        }
    }
}
