//! The log of requests. Tests count them, and people read them at `/_sim/requests`.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// The oldest entries are dropped beyond this number.
const CAPACITY: usize = 100_000;

/// One request to the API. It holds no headers: one of them has the credential.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedRequest {
    /// `GET`, `POST` …
    pub method: String,
    /// The path with its query, as received.
    pub path: String,
    /// The status of the response. `None` while there is none yet, or if a fault dropped it.
    pub status: Option<u16>,
    /// The request's body: JSON if possible, else a string, `null` if there was none.
    pub body: Value,
    /// When the request arrived.
    pub time: Timestamp,
    /// The `X-Tailscale-Request-Id` of the response.
    pub request_id: String,
    /// The faults that hit it.
    pub faults: Vec<&'static str>,
}

/// Entries, each with a number that stays the same when others are dropped.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<LoggedRequest>,
    /// How many entries were dropped, by age or by request.
    left: usize,
}

impl Journal {
    /// Adds an entry and returns its number.
    pub fn open(&mut self, entry: LoggedRequest) -> usize {
        if self.entries.len() == CAPACITY {
            self.entries.pop_front();
            self.left += 1;
        }
        self.entries.push_back(entry);
        // Not the index: a request is closed later, when older entries may be gone.
        self.left + self.entries.len() - 1
    }

    /// Sets the status of an entry, if it is still there.
    pub fn close(&mut self, number: usize, status: u16) {
        let at = number.checked_sub(self.left);
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            entry.status = Some(status);
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = &LoggedRequest> {
        self.entries.iter()
    }

    pub fn clear(&mut self) {
        self.left += self.entries.len();
        self.entries.clear();
    }
}

/// A body as the log shows it.
pub(super) fn shown_body(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
