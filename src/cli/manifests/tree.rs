//! A document as a tree of nodes with their places.

use serde_json::{Number, Value};

use super::{
    path::{FieldPath, Step},
    span::Span,
};

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From its first character to its last. For a map or list only the start is meaningful.
    pub span: Span,
    /// The value.
    pub data: Data,
    /// The source text of a boolean or number, which may be intended as a string: `on` for true.
    pub written: Option<String>,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Null.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file. Its keys are unique.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The place of the key.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A node whose source text does not matter.
    #[must_use]
    pub fn new(span: Span, data: Data) -> Self {
        Self {
            span,
            data,
            written: None,
        }
    }

    /// The entries of a map.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry with this key, of a map.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value with this key, of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text of a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn items(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn find(&self, path: &FieldPath) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| match step {
            Step::Field(key) | Step::Key(key) => node.get(key),
            // A map may have a key of digits, which a path cannot distinguish from an index.
            Step::Index(index) => match node.items() {
                Some(items) => items.get(*index),
                None => node.get(&index.to_string()),
            },
        })
    }

    /// The place for a message about a field: its value; its key if the value is a map, a list, or empty; the
    /// nearest parent if the field does not exist.
    #[must_use]
    pub fn locate(&self, path: &FieldPath) -> Span {
        let mut node = self;
        let mut name = None;
        for step in path.steps() {
            let below = match step {
                Step::Field(key) | Step::Key(key) => node.entry(key),
                Step::Index(index) => {
                    if let Some(item) = node.items().and_then(|items| items.get(*index)) {
                        (node, name) = (item, None);
                        continue;
                    }
                    // A map may have a key of digits, which a path cannot distinguish from an
                    // index.
                    node.entry(&index.to_string())
                }
            };
            let Some(entry) = below else { break };
            (node, name) = (&entry.value, Some(entry.key_span));
        }
        // A map or a list covers many lines, so that its key is the better place.
        let scalar = !matches!(node.data, Data::List(_) | Data::Map(_));
        match name {
            Some(key) if !scalar || node.span.is_empty() => key,
            _ => node.span,
        }
    }

    /// The place of a field's key.
    #[must_use]
    pub fn locate_key(&self, path: &FieldPath) -> Span {
        let mut node = self;
        let mut span = self.span;
        for step in path.steps() {
            let index;
            let key = match step {
                Step::Field(key) | Step::Key(key) => key,
                Step::Index(at) => {
                    if let Some(item) = node.items().and_then(|items| items.get(*at)) {
                        (node, span) = (item, item.span);
                        continue;
                    }
                    index = at.to_string();
                    &index
                }
            };
            let Some(entry) = node.entry(key) else { break };
            (node, span) = (&entry.value, entry.key_span);
        }
        span
    }

    /// The value without places and without null entries of maps, which the API server drops.
    #[must_use]
    pub fn given(&self) -> Value {
        match &self.data {
            Data::List(items) => items.iter().map(Self::given).collect(),
            Data::Map(entries) => entries
                .iter()
                .filter(|entry| entry.value.data != Data::Null)
                .map(|entry| (entry.key.clone(), entry.value.given()))
                .collect(),
            _ => self.to_json(),
        }
    }

    /// The value without places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Boolean(flag) => Value::Bool(*flag),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }
}
