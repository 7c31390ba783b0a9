//! The result of an endpoint: an [`Answer`], or a [`Refusal`] that becomes one.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A complete HTTP response.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A status of at least 400 with the message of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{status}: {message}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The HTTP status.
    #[serde(with = "status_as_number")]
    pub status: StatusCode,
    /// The text of `{"message": …}`.
    pub message: String,
}

pub(super) type Reply = Result<Answer, Refusal>;

impl Answer {
    /// 200 with an empty body.
    pub fn empty() -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// 200 with a JSON body.
    pub fn json(body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self {
                body,
                ..Self::empty().header("content-type", "application/json")
            },
            // Not reached: everything that is sent has a form in JSON.
            Err(error) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into(),
        }
    }

    /// 200 with `{}`, the response of most writes.
    pub fn empty_object() -> Self {
        Self::json(&json!({}))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The same message for a device that never existed, is gone, or is shared in.
    pub(super) fn no_such_device() -> Self {
        Self::not_found("no manageable device matching this ID found")
    }
}

/// Invalid JSON is an error of the client.
impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = json!({"message": refusal.message}).to_string().into_bytes();
        Self {
            body,
            ..Self::empty()
        }
        .with_status(refusal.status)
        .header("content-type", "application/json")
    }
}

/// `StatusCode` has no serde form of its own.
pub(super) mod status_as_number {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub fn serialize<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.as_u16())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
        let number = u16::deserialize(from)?;
        StatusCode::from_u16(number)
            .map_err(|_| D::Error::custom(format!("{number} is not an HTTP status")))
    }
}
