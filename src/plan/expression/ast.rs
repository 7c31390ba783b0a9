//! Expressions by what they give, and their values for a device.
//!
//! No value can be of a wrong type, so that nothing can go wrong but a field that is not there.

use std::borrow::Cow;

use regex::Regex;

use super::fields::{ReadFlag, ReadList, ReadText};
use crate::model::Device;

/// A field that the device does not have, and where it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absent {
    pub at: usize,
    pub field: &'static str,
}

type Value<T> = Result<T, Absent>;

/// `condition ? then : otherwise`
pub(super) struct Choice<T> {
    pub condition: Truth,
    pub then: T,
    pub otherwise: T,
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is asked of a text.
pub(super) enum Question {
    StartsWith(Text),
    EndsWith(Text),
    Contains(Text),
    Matches(Regex),
}

/// True or false.
pub(super) enum Truth {
    Literal(bool),
    Field(ReadFlag),
    /// Whether the device has this field.
    Has(ReadText),
    Not(Box<Truth>),
    All(Vec<Truth>),
    Any(Vec<Truth>),
    Choice(Box<Choice<Truth>>),
    Texts(Text, Comparison, Text),
    Numbers(Number, Comparison, Number),
    Truths(Box<(Truth, Truth)>, Comparison),
    Lists(List, Comparison, List),
    In(Text, List),
    Asks(Text, Box<Question>),
}

/// A text.
pub(super) enum Text {
    Literal(String),
    Field(ReadText),
    Sometimes(ReadText, Absent),
    Lower(Box<Text>),
    Choice(Box<Choice<Text>>),
}

/// A whole number.
pub(super) enum Number {
    Literal(i64),
    Letters(Box<Text>),
    Items(List),
    Choice(Box<Choice<Number>>),
}

/// A list of texts.
pub(super) enum List {
    Literal(Vec<Text>),
    Field(ReadList),
    Choice(Box<Choice<List>>),
}

impl Truth {
    pub fn of(&self, device: &Device) -> Value<bool> {
        match self {
            Self::Literal(value) => Ok(*value),
            Self::Field(read) => Ok(read(device)),
            Self::Has(read) => Ok(read(device).is_some()),
            Self::Not(truth) => Ok(!truth.of(device)?),
            Self::All(parts) => decided(parts, false, device),
            Self::Any(parts) => decided(parts, true, device),
            Self::Choice(choice) => choice.of(device)?.of(device),
            Self::Texts(a, how, b) => Ok(how.holds(&a.of(device)?, &b.of(device)?)),
            Self::Numbers(a, how, b) => Ok(how.holds(&a.of(device)?, &b.of(device)?)),
            Self::Truths(pair, how) => Ok(how.holds(&pair.0.of(device)?, &pair.1.of(device)?)),
            Self::Lists(a, how, b) => Ok(how.holds(&a.of(device)?, &b.of(device)?)),
            Self::In(text, list) => Ok(list.of(device)?.contains(&text.of(device)?)),
            Self::Asks(text, question) => question.of(&text.of(device)?, device),
        }
    }
}

/// As CEL has it: one part that decides makes a fault of another part not matter.
fn decided(parts: &[Truth], decides: bool, device: &Device) -> Value<bool> {
    let mut fault = None;
    for part in parts {
        match part.of(device) {
            Ok(value) if value == decides => return Ok(decides),
            Ok(_) => {}
            Err(absent) => {
                fault.get_or_insert(absent);
            }
        }
    }
    fault.map_or(Ok(!decides), Err)
}

impl Question {
    fn of(&self, text: &str, device: &Device) -> Value<bool> {
        Ok(match self {
            Self::StartsWith(start) => text.starts_with(&*start.of(device)?),
            Self::EndsWith(end) => text.ends_with(&*end.of(device)?),
            Self::Contains(part) => text.contains(&*part.of(device)?),
            Self::Matches(pattern) => pattern.is_match(text),
        })
    }
}

impl Comparison {
    fn holds<T: PartialOrd>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Unequal => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

impl<T> Choice<T> {
    fn of(&self, device: &Device) -> Value<&T> {
        let chosen = self.condition.of(device)?;
        Ok(if chosen { &self.then } else { &self.otherwise })
    }
}

impl Text {
    fn of<'a>(&'a self, device: &'a Device) -> Value<Cow<'a, str>> {
        match self {
            Self::Literal(text) => Ok(Cow::from(text)),
            Self::Field(read) => Ok(read(device).unwrap_or_default()),
            Self::Sometimes(read, absent) => read(device).ok_or(*absent),
            Self::Lower(text) => Ok(text.of(device)?.to_ascii_lowercase().into()),
            Self::Choice(choice) => choice.of(device)?.of(device),
        }
    }
}

impl Number {
    fn of(&self, device: &Device) -> Value<i64> {
        let count = match self {
            Self::Literal(number) => return Ok(*number),
            Self::Letters(text) => text.of(device)?.chars().count(),
            Self::Items(list) => list.of(device)?.len(),
            Self::Choice(choice) => return choice.of(device)?.of(device),
        };
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl List {
    fn of<'a>(&'a self, device: &'a Device) -> Value<Vec<Cow<'a, str>>> {
        match self {
            Self::Literal(texts) => texts.iter().map(|text| text.of(device)).collect(),
            Self::Field(read) => {
                let items = read(device).iter();
                Ok(items.map(|item| Cow::from(item.as_str())).collect())
            }
            Self::Choice(choice) => choice.of(device)?.of(device),
        }
    }
}
