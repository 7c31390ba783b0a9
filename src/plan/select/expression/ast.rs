//! The syntax tree of expressions, by the type of their value, and their evaluation for a device.
//!
//! The tree cannot hold a value of a wrong type, so an evaluation fails only on an absent field, or when its
//! steps are used up.

use std::{borrow::Cow, cell::Cell};

use super::{
    fields::{ReadFlag, ReadList, ReadText},
    pattern::Pattern,
};
use crate::model::Device;

/// A field that the device does not have, and its place in the expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absent {
    pub at: usize,
    pub field: &'static str,
}

/// Why there is no value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure {
    Absent(Absent),
    /// The steps for one device are used up by the part that begins here.
    Exhausted(usize),
}

type Value<T> = Result<T, Failure>;

/// One evaluation: the device, and the remaining steps.
pub(super) struct Evaluation<'a> {
    device: &'a Device,
    left: Cell<usize>,
}

impl<'a> Evaluation<'a> {
    pub fn new(device: &'a Device, steps: usize) -> Self {
        let left = Cell::new(steps);
        Self { device, left }
    }

    pub fn left(&self) -> usize {
        self.left.get()
    }

    /// Takes the steps of an operation before it is carried out.
    fn spend(&self, steps: usize, at: usize) -> Value<()> {
        let left = self.left.get().checked_sub(steps);
        // 0 after a failure, so that no later part can succeed.
        self.left.set(left.unwrap_or_default());
        left.map(|_| ()).ok_or(Failure::Exhausted(at))
    }

    /// Takes the steps of reading or comparing a whole string.
    fn read(&self, text: &str) -> Value<()> {
        self.spend(1 + text.len() / BYTES_PER_STEP, 0)
    }
}

/// Strings are copied and compared several bytes at a time.
const BYTES_PER_STEP: usize = 8;

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

/// A predicate on a string.
pub(super) enum Question {
    StartsWith(Text),
    EndsWith(Text),
    Contains(Text),
    Matches(Pattern, usize),
}

/// A boolean.
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

/// A string.
pub(super) enum Text {
    Literal(String),
    Field(ReadText),
    Sometimes(ReadText, Absent),
    Lower(Box<Text>),
    Choice(Box<Choice<Text>>),
}

/// An integer.
pub(super) enum Number {
    Literal(i64),
    Letters(Box<Text>),
    Items(List),
    Choice(Box<Choice<Number>>),
}

/// A list of strings.
pub(super) enum List {
    Literal(Vec<Text>),
    Field(ReadList),
    Choice(Box<Choice<List>>),
}

impl Truth {
    pub fn of(&self, on: &Evaluation) -> Value<bool> {
        match self {
            Self::Literal(value) => Ok(*value),
            Self::Field(read) => Ok(read(on.device)),
            Self::Has(read) => Ok(read(on.device).is_some()),
            Self::Not(truth) => Ok(!truth.of(on)?),
            Self::All(parts) => decided(parts, false, on),
            Self::Any(parts) => decided(parts, true, on),
            Self::Choice(choice) => choice.of(on)?.of(on),
            Self::Texts(a, how, b) => Ok(how.holds(&a.of(on)?, &b.of(on)?)),
            Self::Numbers(a, how, b) => Ok(how.holds(&a.of(on)?, &b.of(on)?)),
            Self::Truths(pair, how) => Ok(how.holds(&pair.0.of(on)?, &pair.1.of(on)?)),
            // The order counts, as in CEL. The tags of a device are sorted.
            Self::Lists(a, how, b) => Ok(how.holds(&a.of(on)?, &b.of(on)?)),
            Self::In(text, list) => Ok(list.of(on)?.contains(&text.of(on)?)),
            Self::Asks(text, question) => question.of(&text.of(on)?, on),
        }
    }
}

/// As in CEL: if one part decides, an error of another part does not matter.
fn decided(parts: &[Truth], decides: bool, on: &Evaluation) -> Value<bool> {
    let mut error = None;
    for part in parts {
        match part.of(on) {
            Ok(value) if value == decides => return Ok(decides),
            Ok(_) => {}
            // Without steps, the other parts cannot be evaluated either.
            Err(exhausted @ Failure::Exhausted(_)) => return Err(exhausted),
            Err(absent) => {
                error.get_or_insert(absent);
            }
        }
    }
    error.map_or(Ok(!decides), Err)
}

impl Question {
    fn of(&self, text: &str, on: &Evaluation) -> Value<bool> {
        Ok(match self {
            Self::StartsWith(start) => text.starts_with(&*start.of(on)?),
            Self::EndsWith(end) => text.ends_with(&*end.of(on)?),
            // Linear in both strings, whose reads are counted already.
            Self::Contains(part) => text.contains(&*part.of(on)?),
            Self::Matches(pattern, at) => {
                // Before the match: the cost is bounded, not measured.
                on.spend(pattern.steps(text), *at)?;
                pattern.matches(text).ok_or(Failure::Exhausted(*at))?
            }
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
    fn of(&self, on: &Evaluation) -> Value<&T> {
        let chosen = self.condition.of(on)?;
        Ok(if chosen { &self.then } else { &self.otherwise })
    }
}

impl Text {
    fn of<'a>(&'a self, on: &'a Evaluation<'a>) -> Value<Cow<'a, str>> {
        let text = match self {
            Self::Literal(text) => Cow::from(text),
            Self::Field(read) => read(on.device).unwrap_or_default(),
            // An empty string instead would compare as earlier than every time.
            Self::Sometimes(read, absent) => read(on.device).ok_or(Failure::Absent(*absent))?,
            Self::Lower(text) => text.of(on)?.to_ascii_lowercase().into(),
            // The chosen value has counted its own steps.
            Self::Choice(choice) => return choice.of(on)?.of(on),
        };
        on.read(&text)?;
        Ok(text)
    }
}

impl Number {
    fn of(&self, on: &Evaluation) -> Value<i64> {
        let count = match self {
            Self::Literal(number) => return Ok(*number),
            // Code points, as in CEL, not bytes.
            Self::Letters(text) => text.of(on)?.chars().count(),
            Self::Items(list) => list.of(on)?.len(),
            Self::Choice(choice) => return choice.of(on)?.of(on),
        };
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl List {
    fn of<'a>(&'a self, on: &'a Evaluation<'a>) -> Value<Vec<Cow<'a, str>>> {
        match self {
            Self::Literal(texts) => texts.iter().map(|text| text.of(on)).collect(),
            Self::Field(read) => {
                let items = read(on.device).iter();
                items
                    .map(|item| {
                        on.read(item.as_str())?;
                        Ok(Cow::from(item.as_str()))
                    })
                    .collect()
            }
            Self::Choice(choice) => choice.of(on)?.of(on),
        }
    }
}
