//! Injected faults: failures of the network and of the server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    device::Record,
    response::{Answer, Refusal},
};

/// A fault to inject.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultSpec {
    /// The kind of failure.
    pub kind: FaultKind,
    /// The number of requests that it hits. `None`: all until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Hits only this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Hits only this path. `*` stands for any text without `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For [`FaultKind::Status`]: the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For [`FaultKind::Status`]: headers of the response.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// For [`FaultKind::Status`]: the body. A string is sent as it is, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// For [`FaultKind::Delay`]: how long the response is delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// The kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The response has the given status, headers, and body. There is no effect.
    Status,
    /// 502 with an HTML page. There is no effect.
    Html,
    /// The request takes effect, and the response is delayed.
    Delay,
    /// The connection closes before the request takes effect.
    ResetBefore,
    /// The request takes effect, then the connection closes without a response.
    ResetAfter,
    /// The request takes effect, and the response breaks off in the middle.
    Truncate,
    /// The list is an object keyed by id. Any other JSON is inside an array.
    WrongShape,
    /// The list shows the devices from the time of the injection.
    StaleList,
    /// The list shows the first half of the devices.
    ShortList,
}

impl FaultSpec {
    /// A fault of this kind that hits every request until it is deleted.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            times: None,
            method: None,
            path: None,
            status: None,
            headers: BTreeMap::new(),
            body: None,
            seconds: None,
        }
    }
}

impl FaultKind {
    /// The kind as it is written in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Html => "html",
            Self::Delay => "delay",
            Self::ResetBefore => "reset-before",
            Self::ResetAfter => "reset-after",
            Self::Truncate => "truncate",
            Self::WrongShape => "wrong-shape",
            Self::StaleList => "stale-list",
            Self::ShortList => "short-list",
        }
    }
}

/// The effect of a fault on a request that it hits.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Answer(Answer),
    Delay(Duration),
    ResetBefore,
    ResetAfter,
    Truncate,
    WrongShape,
    StaleList(Arc<Vec<Record>>),
    ShortList,
}

/// The faults that hit one request. Delays add up. Of the others only the first applies.
#[derive(Debug, Default)]
pub(super) struct Hit {
    pub delay: Duration,
    pub effect: Option<Effect>,
    pub names: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    given: u64,
}

#[derive(Debug, Serialize)]
struct Fault {
    id: u64,
    /// The number of requests that it hit.
    hits: u32,
    /// `times` of this spec counts down.
    #[serde(flatten)]
    spec: FaultSpec,
    #[serde(skip)]
    effect: Effect,
}

impl Faults {
    /// Injects a fault and returns its id. A stale list will show `records`.
    pub fn add(&mut self, spec: FaultSpec, records: &[Record]) -> Result<u64, Refusal> {
        let effect = effect_of(&spec, records)?;
        self.given += 1;
        self.faults.push(Fault {
            id: self.given,
            hits: 0,
            spec,
            effect,
        });
        Ok(self.given)
    }

    pub fn clear(&mut self) {
        self.faults.clear();
    }

    /// Removes a fault. False if there is none with that id.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| fault.id != id);
        self.faults.len() < before
    }

    /// The remaining faults, with how often each was used and may still be used.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(&self.faults)
    }

    /// Finds the faults that hit this request, and counts them as used.
    pub fn hit(&mut self, method: &str, path: &str) -> Hit {
        let mut hit = Hit::default();
        for fault in &mut self.faults {
            if !fault.matches(method, path) {
                continue;
            }
            match &fault.effect {
                Effect::Delay(delay) => hit.delay += *delay,
                // Not counted: the fault waits for a request of its own.
                _ if hit.effect.is_some() => continue,
                effect => hit.effect = Some(effect.clone()),
            }
            hit.names.push(fault.spec.kind.name());
            fault.hits += 1;
            fault.spec.times = fault.spec.times.map(|times| times.saturating_sub(1));
        }
        // After the loop, so that a fault that is used up still hits this request.
        self.faults.retain(|fault| fault.spec.times != Some(0));
        hit
    }
}

impl Fault {
    fn matches(&self, method: &str, path: &str) -> bool {
        // These two would make no sense elsewhere, so they need no path.
        let only_list = matches!(self.spec.kind, FaultKind::StaleList | FaultKind::ShortList);
        (!only_list || (method == "GET" && glob("/api/v2/tailnet/*/devices", path)))
            && self
                .spec
                .method
                .as_ref()
                .is_none_or(|it| it.eq_ignore_ascii_case(method))
            && self
                .spec
                .path
                .as_ref()
                .is_none_or(|pattern| glob(pattern, path))
    }
}

fn effect_of(spec: &FaultSpec, records: &[Record]) -> Result<Effect, Refusal> {
    Ok(match spec.kind {
        FaultKind::Status => Effect::Answer(answer_of(spec)?),
        FaultKind::Html => Effect::Answer(
            Answer {
                body: HTML.as_bytes().to_vec(),
                ..Answer::empty().with_status(StatusCode::BAD_GATEWAY)
            }
            .header("content-type", "text/html; charset=utf-8"),
        ),
        FaultKind::Delay => {
            let delay = spec
                .seconds
                .and_then(|it| Duration::try_from_secs_f64(it).ok());
            Effect::Delay(
                delay.ok_or_else(|| {
                    Refusal::bad_request("a delay needs \"seconds\" of 0 or more")
                })?,
            )
        }
        FaultKind::ResetBefore => Effect::ResetBefore,
        FaultKind::ResetAfter => Effect::ResetAfter,
        FaultKind::Truncate => Effect::Truncate,
        FaultKind::WrongShape => Effect::WrongShape,
        // Copied now: the list shows this moment, however much changes later.
        FaultKind::StaleList => Effect::StaleList(Arc::new(records.to_vec())),
        FaultKind::ShortList => Effect::ShortList,
    })
}

fn answer_of(spec: &FaultSpec) -> Result<Answer, Refusal> {
    // Only final statuses: another response would follow a 1xx.
    let status = spec
        .status
        .and_then(|it| StatusCode::from_u16(it).ok())
        .filter(|status| !status.is_informational())
        .ok_or_else(|| Refusal::bad_request("a status fault needs \"status\", from 200 to 999"))?;
    let unmarked = match &spec.body {
        None => Answer::empty(),
        Some(Value::String(text)) => Answer {
            body: text.clone().into_bytes(),
            ..Answer::empty()
        },
        Some(json) => Answer::json(json),
    };
    let answer = unmarked.with_status(status);
    for (name, value) in &spec.headers {
        let readable =
            http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
        if !readable {
            return Err(Refusal::bad_request(format!(
                "\"{name}: {value}\" is not a valid header"
            )));
        }
    }
    let headers = spec.headers.iter();
    Ok(headers.fold(answer, |answer, (name, value)| answer.header(name, value)))
}

/// Whether `path` matches `pattern`, in which `*` stands for any text without `/`.
fn glob(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => path.strip_prefix(before).is_some_and(|rest| {
            let segment = rest.find('/').unwrap_or(rest.len());
            (0..=segment).any(|end| rest.get(end..).is_some_and(|rest| glob(after, rest)))
        }),
    }
}

const HTML: &str = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\
<body><h1>502 Bad Gateway</h1><p>The server is temporarily unable to service your request.</p></body></html>\n";
