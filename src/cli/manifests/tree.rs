//! A document as a tree whose nodes know where they stand.

use serde_json::{Map, Number, Value};

use super::{
    path::{FieldPath, Step},
    span::Span,
};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From its first character to its last; of a map or list only the start means something.
    pub span: Span,
    /// What it is.
    pub data: Data,
    /// How it is written, where that is no text though it could be meant as one: `on` for true.
    pub written: Option<String>,
}

/// A value as JSON knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Nothing.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order in which it is written; no key is there twice.
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A value that is what it looks like.
    #[must_use]
    pub fn new(span: Span, data: Data) -> Self {
        Self {
            span,
            data,
            written: None,
        }
    }

    /// The entries, of a map.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of this key, of a map.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of this key, of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text, of a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, of a list.
    #[must_use]
    pub fn items(&self) -> Option<&[Node]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    /// Where to point for what is said of a field: at its value; at its key where the value is a map
    /// or list, or nothing; at the nearest thing above where there is no such field.
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
                    node.entry(&index.to_string())
                }
            };
            let Some(entry) = below else { break };
            (node, name) = (&entry.value, Some(entry.key_span));
        }
        let scalar = !matches!(node.data, Data::List(_) | Data::Map(_));
        match name {
            Some(key) if !scalar || node.span.is_empty() => key,
            _ => node.span,
        }
    }

    /// Where the key of a field stands.
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

    /// The value without places, and without the entries of maps that are nothing: the API server
    /// drops them.
    #[must_use]
    pub fn given(&self) -> Value {
        match &self.data {
            Data::List(items) => items.iter().map(Self::given).collect(),
            Data::Map(entries) => {
                let given = entries.iter().filter(|it| it.value.data != Data::Null);
                let entry = |entry: &Entry| (entry.key.clone(), entry.value.given());
                Value::Object(given.map(entry).collect::<Map<_, _>>())
            }
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
            Data::Map(entries) => {
                let entry = |entry: &Entry| (entry.key.clone(), entry.value.to_json());
                Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
            }
        }
    }
}
