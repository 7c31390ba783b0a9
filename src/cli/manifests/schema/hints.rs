//! What to write instead of a value, as far as the value itself says what was intended.

use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use super::shape::{choices, kind};
use crate::{
    api::{Remedy, RuleCode},
    cli::manifests::{
        text::Text,
        tree::{Data, Node},
        wording,
    },
    model::{Tag, nearest},
};

/// A value of the wrong type, with the form that the field wants.
pub fn wrong_type(schema: &JSONSchemaProps, node: &Node) -> Text {
    let kind = kind(schema).unwrap_or("object");
    let found = wording::described(node);
    let scalar = matches!(
        node.data,
        Data::Text(_) | Data::Boolean(_) | Data::Number(_)
    );
    let choices = choices(schema);
    if !choices.is_empty() {
        let text = Text::new(format!("expected {}, found {found}", choices.join(" or ")));
        return text.help(one_of(&as_word(node), &choices));
    }
    if let (true, Some(form)) = (scalar, typed_value(schema, node)) {
        return Text::new(format!(
            "expected a map with the type of the value, found {found}"
        ))
        .help(format!("write {form}"));
    }
    if let Data::Number(number) = &node.data
        && refuses(schema, RuleCode::InvalidDuration)
        && let Some(length) = duration(schema, &number.to_string())
    {
        return Text::new(format!("expected a duration, found {found}"))
            .help(format!("write {length}"));
    }
    wording::wrong_type(kind, node)
}

/// What to do about a value that is none of the choices.
pub fn one_of(word: &str, choices: &[&str]) -> String {
    match nearest(word, choices.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write {}", choices.join(" or ")),
    }
}

/// The word that a boolean stands for: `keyExpiry: off` means `Disabled`.
fn as_word(node: &Node) -> String {
    match &node.data {
        Data::Boolean(true) => "Enabled".to_owned(),
        Data::Boolean(false) => "Disabled".to_owned(),
        Data::Text(text) => text.clone(),
        _ => String::new(),
    }
}

/// The form of a posture attribute, for a value without its type.
fn typed_value(schema: &JSONSchemaProps, node: &Node) -> Option<String> {
    if !refuses(schema, RuleCode::MissingAttributeValue) {
        return None;
    }
    let value = node.to_json();
    Some(match &node.data {
        Data::Boolean(flag) => match &node.written {
            // `on` may well be intended as a string.
            Some(written) if *written != flag.to_string() => {
                format!("{{boolean: {flag}}} or {{string: \"{written}\"}}")
            }
            _ => format!("{{boolean: {flag}}}"),
        },
        Data::Number(number) if number.is_f64() => format!("{{string: \"{value}\"}}"),
        Data::Number(_) => format!("{{integer: {value}}}"),
        Data::Text(text) if text.bytes().all(|b| b.is_ascii_alphabetic()) => {
            format!("{{string: {text}}}")
        }
        _ => format!("{{string: {value}}}"),
    })
}

fn refuses(schema: &JSONSchemaProps, code: RuleCode) -> bool {
    let mut rules = schema.x_kubernetes_validations.iter().flatten();
    rules.any(|rule| Remedy::of(rule).is_some_and(|remedy| remedy.code == code))
}

/// A better remedy for a value that breaks a rule than the fixed one of the rule.
pub fn better(schema: &JSONSchemaProps, code: RuleCode, value: &str) -> Option<String> {
    let instead = match code {
        RuleCode::HostBits => value.parse::<IpNet>().ok()?.trunc().to_string(),
        RuleCode::InvalidCidr => {
            let address: std::net::IpAddr = value.parse().ok()?;
            return Some(format!(
                "write {} for this one address",
                IpNet::from(address)
            ));
        }
        RuleCode::InvalidDuration => duration(schema, value)?,
        RuleCode::MissingTagPrefix => format!("tag:{value}").parse::<Tag>().ok()?.to_string(),
        RuleCode::AttributeNamespace => {
            let name = value.rsplit(':').next()?;
            let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            (!name.is_empty() && name.bytes().all(valid)).then(|| format!("custom:{name}"))?
        }
        _ => return None,
    };
    Some(format!("write {instead}"))
}

/// The duration that a number without a unit, or one of days, was intended to be.
fn duration(schema: &JSONSchemaProps, value: &str) -> Option<String> {
    let number = |digits: &str| digits.parse::<u32>().ok().filter(|number| *number > 0);
    if let Some(days) = value.strip_suffix('d').and_then(number) {
        return days.checked_mul(24).map(|hours| format!("{hours}h"));
    }
    let number = number(value)?;
    // A field whose minimum is a day is thought of in hours.
    let unit = if refuses(schema, RuleCode::InactivityTooShort) {
        'h'
    } else {
        's'
    };
    Some(format!("{number}{unit}"))
}
