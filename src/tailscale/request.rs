use reqwest::{Method, Url};
use secrecy::SecretString;
use serde_json::Value;

use super::endpoint::Endpoint;

/// A request to the API, without its credential.
#[derive(Debug)]
pub(super) struct Request {
    pub endpoint: Endpoint,
    pub method: Method,
    /// The path below `/api/v2`, not encoded.
    segments: Vec<String>,
    /// The list and one device leave out routes unless asked for all fields.
    all_fields: bool,
    pub body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    None,
    Json(Value),
    /// The form that asks for an OAuth token. Never logged.
    ClientCredentials {
        client_id: String,
        client_secret: SecretString,
    },
    /// The form that exchanges a workload's token for one of the API. Never logged.
    TokenExchange {
        client_id: String,
        jwt: SecretString,
    },
}

impl Request {
    pub fn new<const N: usize>(endpoint: Endpoint, method: Method, segments: [&str; N]) -> Self {
        Self {
            endpoint,
            method,
            segments: segments.map(str::to_owned).into(),
            all_fields: false,
            body: Body::None,
        }
    }

    pub fn all_fields(self) -> Self {
        Self {
            all_fields: true,
            ..self
        }
    }

    pub fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// The secret in the body.
    pub fn secret(&self) -> Option<&SecretString> {
        match &self.body {
            Body::ClientCredentials { client_secret, .. } => Some(client_secret),
            Body::TokenExchange { jwt, .. } => Some(jwt),
            Body::None | Body::Json(_) => None,
        }
    }

    /// `POST /device/n1/tags`, for people.
    pub fn title(&self) -> String {
        format!("{} /{}", self.method, self.segments.join("/"))
    }

    /// The URL under `base`, which must be one that can have a path.
    pub fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        // Never skipped: `Client::new` refuses a URL without a host, and one with a host has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(["api", "v2"])
                .extend(&self.segments);
        }
        if self.all_fields {
            url.set_query(Some("fields=all"));
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped() {
        let request = Request::new(
            Endpoint::Devices,
            Method::GET,
            ["tailnet", "a/b?c#d%2e é", "devices"],
        );
        for base in [
            "https://example.com",
            "https://example.com/",
            "https://example.com/prefix/",
        ] {
            let url = request.all_fields_url(base);
            assert!(
                url.ends_with("/api/v2/tailnet/a%2Fb%3Fc%23d%252e%20%C3%A9/devices"),
                "{url}"
            );
        }
    }

    impl Request {
        fn all_fields_url(&self, base: &str) -> String {
            self.url(&base.parse().unwrap()).to_string()
        }
    }
}
