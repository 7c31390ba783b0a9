//! `deviceSelector.expression`: a part of CEL over the device as the list reports it.
//!
//! A parser of our own, as anyone who can write a policy chooses the text: nothing that fits into 512
//! characters may use up the stack, the memory or the time of the controller. Patterns are bounded in size
//! and compiled when they are first matched, and an evaluation has a number of steps. Every type is known before the first
//! device is seen, so that all faults but one are found when the policy is read; the one that is left
//! is a field that a device does not have. What is accepted means the same as in CEL (a test compares).

mod ast;
#[cfg(test)]
mod bounds;
mod fields;
mod lexer;
mod parser;
mod pattern;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use self::ast::{Evaluation, Failure, Truth};
use crate::model::Device;

/// A condition on a device.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Truth>,
}

impl Expression {
    /// The longest expression, in characters.
    pub const MAX_LENGTH: usize = 512;

    /// The steps that an evaluation may take: a pattern takes its letters times those of the text.
    pub const MAX_STEPS: usize = 20_000;

    /// Whether it holds of a device. A fault where it asks for a field that the device does not have
    /// and the rest does not decide without it, or where it takes too many steps.
    pub fn holds(&self, device: &Device) -> Result<bool, ExpressionError> {
        self.evaluate(device).0
    }

    /// Whether it holds of a device, and the steps that this took.
    pub(super) fn evaluate(&self, device: &Device) -> (Result<bool, ExpressionError>, usize) {
        let evaluation = Evaluation::new(device, Self::MAX_STEPS);
        let result = self.root.of(&evaluation);
        let result = result.map_err(|failure| self.error(failure));
        (result, Self::MAX_STEPS - evaluation.left())
    }

    fn error(&self, failure: Failure) -> ExpressionError {
        match failure {
            Failure::Absent(absent) => {
                let field = absent.field;
                let why = format!("device.{field} is not there: ask for has(device.{field}) first");
                ExpressionError::at(&self.text, absent.at, why)
            }
            Failure::Exhausted(at) => {
                let why = format!(
                    "this takes more than {} steps for one device: write shorter patterns, or fewer \
                     of them",
                    Self::MAX_STEPS
                );
                ExpressionError::at(&self.text, at, why)
            }
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let length = text.chars().count();
        if length > Self::MAX_LENGTH {
            let why = format!(
                "the expression has {length} characters: write at most {}",
                Self::MAX_LENGTH
            );
            return Err(ExpressionError::at(text, Self::MAX_LENGTH, why));
        }
        match parser::parse(text) {
            Ok(root) => Ok(Self {
                text: text.into(),
                root: Arc::new(root),
            }),
            Err(error) => Err(ExpressionError::at(text, error.at, error.why)),
        }
    }
}

/// The same text is the same condition.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    line: usize,
    column: usize,
    /// What stands there; empty at the end.
    there: String,
    why: String,
}

impl ExpressionError {
    /// `at` counts characters from the start.
    fn at(text: &str, at: usize, why: String) -> Self {
        const SHOWN: usize = 24;
        let before: Vec<char> = text.chars().take(at).collect();
        let line_start = before.iter().rposition(|letter| *letter == '\n');
        let mut after = text.chars().skip(at).take_while(|letter| *letter != '\n');
        let mut there: String = after.by_ref().take(SHOWN).collect();
        if after.next().is_some() {
            there.push('…');
        }
        Self {
            line: 1 + before.iter().filter(|letter| **letter == '\n').count(),
            column: before.len() - line_start.map_or(0, |at| at + 1) + 1,
            there,
            why,
        }
    }
}

/// `line 1, column 8, at «hostnme == 'fra'»: …`
impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}, ", self.line, self.column)?;
        if self.there.is_empty() {
            f.write_str("at the end")?;
        } else {
            write!(f, "at «{}»", self.there)?;
        }
        write!(f, ": {}", self.why)
    }
}
