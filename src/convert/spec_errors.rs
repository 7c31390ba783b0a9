use std::{collections::BTreeSet, fmt::Display, str::FromStr};

use jiff::Timestamp;

use crate::model::{Refused, parse_time};

/// Collects all errors, so that an author can fix them at once.
#[derive(Default)]
pub(super) struct SpecErrors(Vec<String>);

impl SpecErrors {
    /// The value if there are no errors.
    pub(super) fn or<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }

    pub(super) fn add(&mut self, path: &str, error: impl Display) {
        self.0.push(format!("spec.{path}: {error}"));
    }

    pub(super) fn one<T: FromStr<Err: Display>>(
        &mut self,
        path: &str,
        text: Option<&String>,
    ) -> Option<T> {
        match text?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(path, error);
                None
            }
        }
    }

    pub(super) fn set<T: FromStr<Err: Display> + Ord>(
        &mut self,
        path: &str,
        texts: &[String],
    ) -> BTreeSet<T> {
        let parsed = texts.iter().enumerate();
        parsed
            .filter_map(|(i, text)| self.one(&format!("{path}[{i}]"), Some(text)))
            .collect()
    }

    pub(super) fn time(&mut self, path: &str, text: Option<&String>) -> Option<Timestamp> {
        let text = text?;
        self.value_of(path, parse_time(text))
    }

    pub(super) fn value_of<T>(&mut self, path: &str, value: Result<T, Refused>) -> Option<T> {
        value.map_err(|refused| self.add(path, refused)).ok()
    }
}
