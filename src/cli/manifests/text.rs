//! What a diagnostic says: the problem, and what to do about it.

use std::fmt;

/// The verbs with which a message of the planner or of a rule says what to do.
const REMEDIES: [&str; 6] = [
    ": write ",
    ": use ",
    ": add ",
    ": remove ",
    ": keep ",
    ": test ",
];

/// A problem, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What was found, and what was expected.
    pub problem: String,
    /// What to do, as the part of a sentence that begins with a verb: `write ["tag:a"]`.
    pub help: Option<String>,
}

impl Text {
    /// A problem.
    #[must_use]
    pub fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            help: None,
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// Splits a message of the planner, in which the remedy follows the problem after a colon.
    #[must_use]
    pub fn split(message: &str) -> Self {
        let ends = REMEDIES.iter().filter_map(|remedy| message.find(remedy));
        match ends.min() {
            Some(end) => Self::new(&message[..end]).help(&message[end + 2..]),
            None => Self::new(message),
        }
    }
}

impl Text {
    /// Splits a message about devices, in which a question or an instruction follows the problem.
    #[must_use]
    pub fn question(message: &str) -> Self {
        for (end, start) in [("; did you mean ", 2), (". Set ", 2)] {
            if let Some(at) = message.find(end) {
                let (problem, rest) = message.split_at(at);
                let mut letters = rest[start..].chars();
                let first = letters.next().into_iter().flat_map(char::to_lowercase);
                let help = first.collect::<String>() + letters.as_str();
                return Self::new(problem).help(help);
            }
        }
        Self::new(message)
    }
}

impl From<String> for Text {
    fn from(problem: String) -> Self {
        Self::new(problem)
    }
}

impl From<&str> for Text {
    fn from(problem: &str) -> Self {
        Self::new(problem)
    }
}

impl fmt::Display for Text {
    /// In one line: `found 10, expected at most 9. Write 9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        let Some(help) = &self.help else {
            return Ok(());
        };
        let mut letters = help.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        write!(f, ". {}{}", first.collect::<String>(), letters.as_str())
    }
}
