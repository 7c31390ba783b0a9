use std::fmt;

/// A path from the root of an object to a field: `spec.postureAttributes[custom:tier].string`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field that the schema names.
    Field(String),
    /// An entry of a map with arbitrary keys.
    Key(String),
    /// An item of a list.
    Index(usize),
}

impl FieldPath {
    /// The object itself.
    pub const ROOT: Self = Self(Vec::new());

    /// Parses the text form of a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((inner, after)) = rest.strip_prefix('[').and_then(|it| it.split_once(']')) {
                steps.push(match inner.parse() {
                    // A key of a map may also be a number: [`super::tree`] tries both.
                    Ok(index) => Step::Index(index),
                    Err(_) => Step::Key(inner.to_owned()),
                });
                rest = after;
            } else {
                let field = rest.strip_prefix('.').unwrap_or(rest);
                let end = field.find(['.', '[']).unwrap_or(field.len());
                if end > 0 {
                    steps.push(Step::Field(field[..end].to_owned()));
                }
                // An unclosed bracket: skip it, so that the loop ends.
                let stuck = end == 0 && field.len() == rest.len();
                rest = if stuck { &rest[1..] } else { &field[end..] };
            }
        }
        Self(steps)
    }

    /// A field below this one.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.with(Step::Field(name.to_owned()))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// An item of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// Appends a relative path.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }

    /// The steps, from the root.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if i == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Key(key) => write!(f, "[{key}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_parses_from_its_text_form() {
        let tags = FieldPath::ROOT.field("spec").field("tags").index(1);
        let attribute = FieldPath::ROOT
            .field("spec")
            .field("postureAttributes")
            .key("custom:tier")
            .field("string");
        for (path, text) in [
            (FieldPath::ROOT, ""),
            (tags, "spec.tags[1]"),
            (attribute, "spec.postureAttributes[custom:tier].string"),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(FieldPath::parse(text), path);
        }
    }

    #[test]
    fn parsing_an_invalid_path_ends() {
        for text in [".", "..", "[", "a[", "a[b", "a]", "[]", "a..b"] {
            let path = FieldPath::parse(text);
            assert!(path.steps().len() <= 2, "{text}: {path}");
        }
    }
}
