//! The functions that Kubernetes adds to CEL, as far as the rules of tailnet.dev use them, and the
//! conversion of values to CEL.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use cel::{
    Context, Env, ExecutionError, Value,
    extractors::This,
    objects::{Key, Map, Opaque},
};
use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;

use super::{
    network,
    shape::{choices, is_readable},
};
use crate::cli::manifests::tree::{Data, Node};

/// A Go value within an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Foreign {
    Ip(IpAddr),
    Cidr(IpNet),
    Url {
        scheme: String,
        host: String,
    },
    /// A value of the wrong type. Every function refuses it.
    Unreadable,
}

impl Opaque for Foreign {
    fn runtime_type_name(&self) -> &str {
        match self {
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url { .. } => "kubernetes.URL",
            Self::Unreadable => "tsdp.Unreadable",
        }
    }
}

impl From<Foreign> for Value {
    fn from(foreign: Foreign) -> Self {
        Self::Opaque(Arc::new(foreign))
    }
}

type Answer = Result<Value, ExecutionError>;

/// The environment: CEL's standard functions and those on strings.
pub fn language() -> Env {
    let mut env = Env::stdlib();
    // Fails only if a function is declared twice, which cannot happen in a new environment.
    let _ = cel::extensions::strings(&mut env);
    env
}

/// The context of evaluation, with the functions of Kubernetes.
pub fn scope(env: Arc<Env>) -> Context<'static, 'static> {
    let mut scope = Context::with_env(env);
    let patterns = Patterns::default();
    // Each call fails only if the function is declared twice. A test evaluates every rule.
    let _ = scope.add_function(
        "matches",
        move |This(text): This<Arc<String>>, pattern: Arc<String>| {
            patterns.matches(&text, &pattern)
        },
    );
    add_network_functions(&mut scope);
    let _ = scope.add_function("isURL", |text: Arc<String>| network::url(&text).is_some());
    let _ = scope.add_function("url", |text: Arc<String>| match network::url(&text) {
        Some((scheme, host)) => Ok(Value::from(Foreign::Url {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
        })),
        None => Err(unfit("url", &text)),
    });
    let _ = scope.add_function("duration", |text: Arc<String>| {
        // As nanoseconds: the rules only compare durations.
        network::duration(&text).ok_or_else(|| unfit("duration", &text))
    });
    let _ = scope.add_function("getScheme", |This(it): This<Value>| match foreign(&it) {
        Some(Foreign::Url { scheme, .. }) => Ok(Arc::new(scheme.clone())),
        _ => Err(unfit("getScheme", &it)),
    });
    let _ = scope.add_function("getHost", |This(it): This<Value>| match foreign(&it) {
        Some(Foreign::Url { host, .. }) => Ok(Arc::new(host.clone())),
        _ => Err(unfit("getHost", &it)),
    });
    scope
}

/// The functions for addresses and networks.
fn add_network_functions(scope: &mut Context<'_, '_>) {
    let _ = scope.add_function("isIP", |text: Arc<String>| network::ip(&text).is_some());
    let _ = scope.add_function("isCIDR", |text: Arc<String>| network::cidr(&text).is_some());
    let _ = scope.add_function("ip", |This(from): This<Value>| to_ip(&from));
    let _ = scope.add_function("cidr", |This(from): This<Value>| {
        to_cidr(&from).map(Value::from)
    });
    let _ = scope.add_function("family", |This(it): This<Value>| match foreign(&it) {
        Some(Foreign::Ip(addr)) => Ok(if addr.is_ipv4() { 4_i64 } else { 6 }),
        _ => Err(unfit("family", &it)),
    });
    let _ = scope.add_function("masked", |This(it): This<Value>| {
        let net = network_of("masked", &it)?;
        Answer::Ok(Foreign::Cidr(net.trunc()).into())
    });
    let _ = scope.add_function("prefixLength", |This(it): This<Value>| {
        network_of("prefixLength", &it).map(|net| i64::from(net.prefix_len()))
    });
    let _ = scope.add_function("containsIP", |This(it): This<Value>, other: Value| {
        let net = network_of("containsIP", &it)?;
        match foreign(&to_ip(&other)?) {
            Some(Foreign::Ip(addr)) => Ok(net.contains(addr)),
            _ => Err(unfit("containsIP", &other)),
        }
    });
    let _ = scope.add_function("containsCIDR", |This(it): This<Value>, other: Value| {
        let net = network_of("containsCIDR", &it)?;
        let other = to_cidr(&other)?;
        let inner = network_of("containsCIDR", &other.into())?;
        Ok::<_, ExecutionError>(net.contains(&inner.trunc()))
    });
}

/// Compiled patterns, because a rule is evaluated for many values.
#[derive(Default)]
struct Patterns(Mutex<HashMap<String, Regex>>);

impl Patterns {
    fn matches(&self, text: &str, pattern: &str) -> Result<bool, ExecutionError> {
        // The patterns are constants of the rules, so the cache stays small.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = known.get(pattern) {
            return Ok(regex.is_match(text));
        }
        let regex = Regex::new(pattern)
            .map_err(|error| ExecutionError::function_error("matches", error))?;
        let is_match = regex.is_match(text);
        known.insert(pattern.to_owned(), regex);
        Ok(is_match)
    }
}

fn unfit(function: &str, value: &impl fmt::Debug) -> ExecutionError {
    ExecutionError::function_error(
        function,
        format!("found {value:?}, expected a value of another type"),
    )
}

fn foreign(value: &Value) -> Option<&Foreign> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref(),
        _ => None,
    }
}

fn network_of(function: &str, value: &Value) -> Result<IpNet, ExecutionError> {
    match foreign(value) {
        Some(Foreign::Cidr(net)) => Ok(*net),
        _ => Err(unfit(function, value)),
    }
}

/// Parses a string, or takes the address of a network.
fn to_ip(from: &Value) -> Answer {
    let addr = match (from, foreign(from)) {
        (Value::String(text), _) => network::ip(text),
        (_, Some(Foreign::Ip(addr))) => Some(*addr),
        (_, Some(Foreign::Cidr(net))) => Some(net.addr()),
        _ => None,
    };
    addr.map(|addr| Foreign::Ip(addr).into())
        .ok_or_else(|| unfit("ip", from))
}

fn to_cidr(from: &Value) -> Result<Foreign, ExecutionError> {
    let net = match (from, foreign(from)) {
        (Value::String(text), _) => network::cidr(text),
        (_, Some(Foreign::Cidr(net))) => Some(*net),
        _ => None,
    };
    net.map(Foreign::Cidr).ok_or_else(|| unfit("cidr", from))
}

/// The number of [readings](value) of an object with errors: more than any field has choices.
pub const READINGS: usize = 12;

/// A value for the rules. The API server prunes fields that the schema does not name, and so does this.
///
/// The intended value of an unreadable one is unknown: each `reading` takes another one of the values that it may
/// become once it is corrected.
pub fn value(schema: &JSONSchemaProps, node: &Node, reading: usize) -> Value {
    if !is_readable(schema, node) {
        return corrected(schema, reading);
    }
    match &node.data {
        Data::Null => Value::Null,
        Data::Boolean(flag) => Value::Bool(*flag),
        Data::Number(number) => match (schema.type_.as_deref(), number.as_i64()) {
            // Without a type: an integer or a string.
            (Some("integer") | None, Some(integer)) => Value::Int(integer),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Data::Text(text) => Value::String(Arc::new(text.clone())),
        Data::List(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(of)) = &schema.items else {
                return Value::List(Arc::default());
            };
            let items = items.iter().map(|item| value(of, item, reading));
            Value::List(Arc::new(items.collect()))
        }
        Data::Map(entries) => {
            // The API server drops null entries before it evaluates a rule.
            let given = entries.iter().filter(|it| it.value.data != Data::Null);
            let fields = given.filter_map(|entry| {
                let key = Key::String(Arc::new(entry.key.clone()));
                Some((
                    key,
                    value(field(schema, &entry.key)?, &entry.value, reading),
                ))
            });
            Value::Map(Map {
                map: Arc::new(fields.collect()),
            })
        }
    }
}

fn corrected(schema: &JSONSchemaProps, reading: usize) -> Value {
    let choices = choices(schema);
    if !choices.is_empty() {
        let choice = choices[reading % choices.len()];
        return Value::String(Arc::new(choice.to_owned()));
    }
    match schema.type_.as_deref() {
        Some("boolean") => Value::Bool(reading.is_multiple_of(2)),
        _ => Foreign::Unreadable.into(),
    }
}

/// The schema of a field, or of a value in a map with arbitrary keys.
fn field<'s>(schema: &'s JSONSchemaProps, key: &str) -> Option<&'s JSONSchemaProps> {
    match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => Some(values.as_ref()),
        _ => schema.properties.as_ref()?.get(key),
    }
}
