//! Faults that are put in by request: what the network and a bad day do to answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    device::Record,
    response::{Answer, Refusal},
};

/// A fault as it is put in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultSpec {
    /// What goes wrong.
    pub kind: FaultKind,
    /// How often; `None` until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Only for this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only for this path; `*` stands for any text without `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For [`FaultKind::Status`]: the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For [`FaultKind::Status`]: headers of the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// For [`FaultKind::Status`]: text as it is, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// For [`FaultKind::Delay`]: for how long the answer is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The answer has the given status, headers and body; there is no effect.
    Status,
    /// 502 with an HTML page; there is no effect.
    Html,
    /// The effect takes place, the answer is held back.
    Delay,
    /// The connection closes before the request has an effect.
    ResetBefore,
    /// The effect takes place, then the connection closes without an answer.
    ResetAfter,
    /// The effect takes place, the answer breaks off in its middle.
    Truncate,
    /// The list comes as an object keyed by id, any other JSON inside an array.
    WrongShape,
    /// The list shows the devices as they were when the fault was put in.
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

/// What a fault does to a request that it hits.
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

/// The faults that one request ran into: delays add up, of the others the first counts.
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
    /// How often it was used.
    hits: u32,
    /// `times` in here counts down.
    #[serde(flatten)]
    spec: FaultSpec,
    #[serde(skip)]
    effect: Effect,
}

impl Faults {
    /// Puts a fault in and gives its id; `records` is what a stale list will show.
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

    /// Takes one fault out; false if there is none of that id.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| fault.id != id);
        self.faults.len() < before
    }

    /// Those that remain, with how often they were used and may be used still.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(&self.faults)
    }

    /// Finds what this request runs into, and uses it up.
    pub fn hit(&mut self, method: &str, path: &str) -> Hit {
        let mut hit = Hit::default();
        for fault in &mut self.faults {
            if !fault.matches(method, path) {
                continue;
            }
            match &fault.effect {
                Effect::Delay(delay) => hit.delay += *delay,
                _ if hit.effect.is_some() => continue,
                effect => hit.effect = Some(effect.clone()),
            }
            hit.names.push(fault.spec.kind.name());
            fault.hits += 1;
            fault.spec.times = fault.spec.times.map(|times| times.saturating_sub(1));
        }
        self.faults.retain(|fault| fault.spec.times != Some(0));
        hit
    }
}

impl Fault {
    fn matches(&self, method: &str, path: &str) -> bool {
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
            let needed = || Refusal::bad_request("a delay needs \"seconds\", not negative");
            Effect::Delay(delay.ok_or_else(needed)?)
        }
        FaultKind::ResetBefore => Effect::ResetBefore,
        FaultKind::ResetAfter => Effect::ResetAfter,
        FaultKind::Truncate => Effect::Truncate,
        FaultKind::WrongShape => Effect::WrongShape,
        FaultKind::StaleList => Effect::StaleList(Arc::new(records.to_vec())),
        FaultKind::ShortList => Effect::ShortList,
    })
}

fn answer_of(spec: &FaultSpec) -> Result<Answer, Refusal> {
    // A final answer: 1xx would be followed by another one.
    let status = spec.status.and_then(|it| StatusCode::from_u16(it).ok());
    let status = status.filter(|status| !status.is_informational());
    let needed = || Refusal::bad_request("a status fault needs \"status\", from 200 to 999");
    let answer = match &spec.body {
        None => Answer::empty(),
        Some(Value::String(text)) => Answer {
            body: text.clone().into_bytes(),
            ..Answer::empty()
        },
        Some(json) => Answer::json(json),
    };
    let answer = answer.with_status(status.ok_or_else(needed)?);
    for (name, value) in &spec.headers {
        let readable =
            http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
        if !readable {
            return Err(Refusal::bad_request(format!(
                "\"{name}: {value}\" is no header"
            )));
        }
    }
    let headers = spec.headers.iter();
    Ok(headers.fold(answer, |answer, (name, value)| answer.header(name, value)))
}

/// Whether `path` fits `pattern`, in which `*` stands for any text without `/`.
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
