//! From the text of one YAML document to a tree.
//!
//! The parser is the one that kube's client brings along. It knows YAML 1.2; what a scalar means is
//! decided by [`super::scalar`], as kubectl does. Anchors, aliases and merge keys are resolved here.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag, options};

use super::{
    scalar::{self, ScalarError},
    span::{Position, Span},
    tree::{Data, Entry, Node},
};

/// go-yaml refuses a document whose aliases make it many times larger; its limit is not as plain.
const MAX_NODES: usize = 400_000;

/// Why a document cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Where.
    pub span: Span,
    /// What was found, and what to write.
    pub message: String,
}

/// A document that was read.
#[derive(Debug)]
pub struct Read {
    /// What it says; `None` where there is nothing but comments.
    pub root: Option<Node>,
    /// What kubectl would take, but never as it was meant: keys that stand twice.
    pub diagnostics: Vec<YamlError>,
}

/// Reads one document, whose first line is the line `first` of its file.
pub fn read(text: &str, first: Position) -> Result<Read, YamlError> {
    let mut options = options! {};
    options.set_emit_comments(false);
    let mut builder = Builder {
        events: Parser::new_from_str_with_options(text, options),
        first,
        anchors: HashMap::new(),
        nodes: 0,
        diagnostics: Vec::new(),
    };
    let root = builder.document()?;
    Ok(Read {
        root,
        diagnostics: builder.diagnostics,
    })
}

struct Builder<'t> {
    events: Parser<'t, StrInput<'t>>,
    /// Where the text begins in its file.
    first: Position,
    /// The nodes that have an anchor; `None` while such a node is being read.
    anchors: HashMap<usize, Option<Node>>,
    nodes: usize,
    diagnostics: Vec<YamlError>,
}

type Spanned<'t> = (Event<'t>, Span);

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Option<Node>, YamlError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_, version) => {
                    if version.is_some_and(|it| (it.major, it.minor) != (1, 1)) {
                        let message = "kubectl reads YAML 1.1 only: leave out the %YAML line";
                        return Err(diagnostic(span, message));
                    }
                    if root.is_some() {
                        let message = "kubectl does not read what follows ...: write --- before it";
                        return Err(diagnostic(span, message));
                    }
                }
                Event::StreamEnd => return Ok(root),
                event => root = Some(self.node((event, span))?),
            }
        }
    }

    fn next(&mut self) -> Result<Spanned<'t>, YamlError> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let span = Span {
                    start: self.position(&span.start),
                    end: self.position(&span.end),
                };
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
            // The parser ends with StreamEnd, where reading ends too.
            None => Ok((Event::StreamEnd, Span::at(self.first))),
        }
    }

    fn position(&self, marker: &Marker) -> Position {
        let column = marker.col() + 1;
        Position {
            line: self.first.line + marker.line() - 1,
            column: if marker.line() == 1 {
                self.first.column + column - 1
            } else {
                column
            },
        }
    }

    fn syntax(&self, error: &ScanError) -> YamlError {
        let span = Span::at(self.position(error.marker()));
        diagnostic(span, &format!("no YAML: {}", error.info()))
    }

    fn node(&mut self, (event, span): Spanned<'t>) -> Result<Node, YamlError> {
        self.count(1, span)?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let data = scalar_data(&text, style, tag.as_ref())
                    .map_err(|error| diagnostic(span, &format!("'{text}': {error}")))?;
                let texts = matches!(data, Data::Text(_) | Data::Null);
                let node = Node {
                    written: (!texts).then(|| text.into_owned()),
                    ..Node::new(span, data)
                };
                self.keep(anchor, Some(&node));
                Ok(node)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.keep(anchor, None);
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        item => items.push(self.node(item)?),
                    }
                }
                let node = Node::new(span, Data::List(items));
                self.keep(anchor, Some(&node));
                Ok(node)
            }
            Event::MappingStart(_, anchor, _) => {
                self.keep(anchor, None);
                let node = Node::new(span, Data::Map(self.entries()?));
                self.keep(anchor, Some(&node));
                Ok(node)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(Some(node)) => {
                    let node = node.clone();
                    self.count(size(&node), span)?;
                    Ok(node)
                }
                _ => Err(diagnostic(
                    span,
                    "this alias stands inside of what it names",
                )),
            },
            _ => Err(diagnostic(span, "no YAML: a value was expected")),
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, YamlError> {
        let mut entries: Vec<Entry> = Vec::new();
        // The keys that are written in this map itself: others come from merges.
        let mut written: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let merges =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = self.node((event, span))?;
            let value = self.next()?;
            let value = self.node(value)?;
            if merges {
                merge(&mut entries, value)?;
                continue;
            }
            let key_span = key.span;
            let key = key_text(&key)?;
            if let Some(before) = written.insert(key.clone(), key_span) {
                self.diagnostics.push(diagnostic(
                    key_span,
                    &format!(
                        "the key '{key}' stands in line {} already, and kubectl would take the last one \
                         without a word: keep one of them",
                        before.start.line
                    ),
                ));
            }
            let entry = Entry {
                key,
                key_span,
                value,
            };
            put(&mut entries, entry);
        }
    }

    fn keep(&mut self, anchor: usize, node: Option<&Node>) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.cloned());
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values with all aliases resolved");
            return Err(diagnostic(span, &message));
        }
        Ok(())
    }
}

fn diagnostic(span: Span, message: &str) -> YamlError {
    let message = message.to_owned();
    YamlError { span, message }
}

fn scalar_data(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Cow<'_, Tag>>,
) -> Result<Data, ScalarError> {
    match tag {
        Some(tag) => {
            let own = tag.suffix_in_namespace("tag:yaml.org,2002:");
            scalar::tagged(own.as_deref(), text)
        }
        None if style == ScalarStyle::Plain => scalar::plain(text),
        None => Ok(Data::Text(text.to_owned())),
    }
}

/// kubectl makes texts of the keys that are none.
fn key_text(key: &Node) -> Result<String, YamlError> {
    match &key.data {
        Data::Text(text) => Ok(text.clone()),
        Data::Boolean(flag) => Ok(flag.to_string()),
        Data::Number(number) => Ok(number.to_string()),
        Data::Null => Err(diagnostic(key.span, "a key is missing before the colon")),
        Data::List(_) | Data::Map(_) => {
            let message = "a list or map cannot be a key: write a text";
            Err(diagnostic(key.span, message))
        }
    }
}

/// As go-yaml v2 does: what is merged takes the place of what stands before the merge key, and what
/// stands after it the place of what is merged; of several maps the first one wins.
fn merge(entries: &mut Vec<Entry>, value: Node) -> Result<(), YamlError> {
    match value.data {
        Data::Map(merged) => {
            for entry in merged {
                put(entries, entry);
            }
            Ok(())
        }
        Data::List(maps) if maps.iter().all(|map| matches!(map.data, Data::Map(_))) => maps
            .into_iter()
            .rev()
            .try_for_each(|map| merge(entries, map)),
        _ => {
            let message = "<< merges maps only: write an alias of a map, or a list of such";
            Err(diagnostic(value.span, message))
        }
    }
}

fn put(entries: &mut Vec<Entry>, entry: Entry) {
    match entries.iter_mut().find(|other| other.key == entry.key) {
        Some(other) => *other = entry,
        None => entries.push(entry),
    }
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|it| size(&it.value)).sum::<usize>(),
        _ => 1,
    }
}
