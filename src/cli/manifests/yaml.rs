//! Parses the text of one YAML document into a tree.
//!
//! The parser is the one that kube's client depends on. It knows YAML 1.2. [`super::scalar`] gives scalars
//! the types that they have in kubectl. This module resolves anchors, aliases and merge keys.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag, options};

use super::{
    go_yaml::{self, Adapted, Tabs},
    scalar::{self, ScalarError},
    span::{Position, Span},
    split::Document,
    text::Text,
    tree::{Data, Entry, Node},
};

/// A limit against documents whose aliases expand exponentially. go-yaml has a similar one, with a more
/// complex formula.
const MAX_NODES: usize = 400_000;

/// Why a document cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// The place.
    pub span: Span,
    /// What was found, and what to write instead.
    pub text: Text,
}

/// A parsed document.
#[derive(Debug)]
pub struct Read {
    /// Its root. `None` if there are only comments.
    pub root: Option<Node>,
    /// Duplicate keys: kubectl accepts them, but never as intended.
    pub diagnostics: Vec<YamlError>,
}

/// Parses one document.
pub fn read(document: &Document<'_>) -> Result<Read, YamlError> {
    let first = document.start;
    let adapted = if document.is_json {
        Adapted::json(document.text)
    } else {
        refuse_characters(document)?;
        Adapted::yaml(document.text)
    };
    let mut options = options! {};
    // Comments would only be events to skip.
    options.set_emit_comments(false);
    let mut builder = Builder {
        events: Parser::new_from_str_with_options(&adapted.text, options),
        tabs: Tabs::new(if document.is_json { "" } else { &adapted.text }),
        is_json: document.is_json,
        adapted: &adapted,
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

fn refuse_characters(document: &Document<'_>) -> Result<(), YamlError> {
    let Some((at, text)) = go_yaml::forbidden(document.text) else {
        return Ok(());
    };
    let position = document.start.after(&document.text[..at]);
    Err(diagnostic(Span::at(position), text))
}

struct Builder<'t> {
    events: Parser<'t, StrInput<'t>>,
    tabs: Tabs<'t>,
    is_json: bool,
    /// The text that the parser gets, and where its lines are in the file.
    adapted: &'t Adapted<'t>,
    /// The start of the text in its file.
    first: Position,
    /// The nodes with an anchor. `None` while the node is being read, to find an alias within itself.
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
                        let text = Text::new("kubectl reads only YAML 1.1");
                        return Err(diagnostic(span, text.help("leave out the %YAML line")));
                    }
                    if root.is_some() {
                        let text = Text::new("kubectl does not read anything after ...");
                        return Err(diagnostic(span, text.help("write --- before it")));
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
                if let Some((line, column)) = self.tabs.refused(&event, &span) {
                    let text = Text::new(
                        "kubectl does not accept this tab: the line has nothing else, or only a comment",
                    );
                    let span = Span::at(self.place(line, column));
                    return Err(diagnostic(span, text.help("remove it")));
                }
                let range = span.byte_range();
                let span = Span {
                    start: self.position(&span.start),
                    end: self.position(&span.end),
                };
                let is_quoted = matches!(event, Event::Scalar(_, ScalarStyle::DoubleQuoted, ..));
                let quoted = range.filter(|_| is_quoted && !self.is_json);
                let quoted = quoted.and_then(|range| self.adapted.text.get(range));
                if let Some(text) = quoted.and_then(go_yaml::escape_of_json) {
                    return Err(diagnostic(span, text));
                }
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
            // Not reached: reading ends at StreamEnd, the last event.
            None => Ok((Event::StreamEnd, Span::at(self.first))),
        }
    }

    fn position(&self, marker: &Marker) -> Position {
        // The parser counts lines from 1 and columns from 0.
        self.place(marker.line() - 1, marker.col())
    }

    /// The position in the file. Line and column are those of the parser's text, from 0.
    fn place(&self, line: usize, column: usize) -> Position {
        let (line, column) = self.adapted.place(line, column);
        Position {
            line: self.first.line + line,
            // Only the first line is shifted: a document can begin in the middle of one.
            column: if line == 0 {
                self.first.column + column
            } else {
                column + 1
            },
        }
    }

    fn syntax(&self, error: &ScanError) -> YamlError {
        let span = Span::at(self.position(error.marker()));
        diagnostic(span, format!("invalid YAML: {}", error.info()))
    }

    fn node(&mut self, (event, span): Spanned<'t>) -> Result<Node, YamlError> {
        self.count(1, span)?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let data = scalar_data(&text, style, tag.as_ref()).map_err(|error| {
                    diagnostic(span, Text::split(&format!("'{text}': {error}")))
                })?;
                let is_text = matches!(data, Data::Text(_) | Data::Null);
                let node = Node {
                    written: (!is_text).then(|| text.into_owned()),
                    ..Node::new(span, data)
                };
                self.keep(anchor, Some(&node));
                Ok(node)
            }
            Event::SequenceStart(_, anchor, _) => {
                // Unfinished: an alias within its own value would never end.
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
                    // An alias counts as all that it stands for: nine lines of aliases could fill
                    // the memory.
                    self.count(size(&node), span)?;
                    Ok(node)
                }
                _ => Err(diagnostic(
                    span,
                    "the alias is inside the value that it refers to",
                )),
            },
            _ => Err(diagnostic(span, "invalid YAML: expected a value")),
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, YamlError> {
        let mut entries = Entries::default();
        // Only the keys of this map itself: a merged key may be overwritten.
        let mut written: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries.list);
            }
            let merges = is_merge(&event);
            let key = self.node((event, span))?;
            let after_key = self.next()?;
            let value = self.node(after_key)?;
            if merges {
                entries.merge(value)?;
                continue;
            }
            let key_span = key.span;
            let key = key_text(&key)?;
            if let Some(before) = written.insert(key.clone(), key_span) {
                let text = Text::new(format!(
                    "the key '{key}' also exists in line {}, and kubectl would silently use the last one",
                    before.start.line
                ));
                let diagnostic = diagnostic(key_span, text.help("keep one of them"));
                self.diagnostics.push(diagnostic);
            }
            let entry = Entry {
                key,
                key_span,
                value,
            };
            entries.put(entry);
        }
    }

    fn keep(&mut self, anchor: usize, node: Option<&Node>) {
        // The parser numbers anchors from 1.
        if anchor != 0 {
            self.anchors.insert(anchor, node.cloned());
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("found more than {MAX_NODES} values with all aliases resolved");
            return Err(diagnostic(span, message));
        }
        Ok(())
    }
}

fn diagnostic(span: Span, text: impl Into<Text>) -> YamlError {
    YamlError {
        span,
        text: text.into(),
    }
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

/// Whether a key is `<<`: without quotes or with a tag that says so, as with quotes it is an ordinary key.
fn is_merge(key: &Event<'_>) -> bool {
    let Event::Scalar(text, style, _, tag) = key else {
        return false;
    };
    let means_it = match tag {
        Some(tag) => {
            let own = tag.suffix_in_namespace("tag:yaml.org,2002:");
            own.as_deref() == Some("merge")
                || (tag.parts() == ("", "!") && *style == ScalarStyle::Plain)
        }
        None => *style == ScalarStyle::Plain,
    };
    text == "<<" && means_it
}

/// kubectl converts keys of other types to strings.
fn key_text(key: &Node) -> Result<String, YamlError> {
    match &key.data {
        Data::Text(text) => Ok(text.clone()),
        Data::Boolean(flag) => Ok(flag.to_string()),
        Data::Number(number) => Ok(number.to_string()),
        Data::Null => Err(diagnostic(key.span, "a key is missing before the colon")),
        Data::List(_) | Data::Map(_) => {
            let text = Text::new("a list or map cannot be a key");
            Err(diagnostic(key.span, text.help("write a string")))
        }
    }
}

/// The entries of a map, in their order.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    /// Where each key is in the list.
    places: HashMap<String, usize>,
}

impl Entries {
    fn put(&mut self, entry: Entry) {
        if let Some(place) = self.places.get(&entry.key) {
            self.list[*place] = entry;
        } else {
            self.places.insert(entry.key.clone(), self.list.len());
            self.list.push(entry);
        }
    }

    /// Merges as go-yaml v2 does: a merged entry replaces one before the merge key, and an entry after the
    /// merge key replaces a merged one. Of several maps the first one takes precedence.
    fn merge(&mut self, value: Node) -> Result<(), YamlError> {
        match value.data {
            Data::Map(merged) => {
                for entry in merged {
                    self.put(entry);
                }
                Ok(())
            }
            Data::List(maps) if maps.iter().all(|map| matches!(map.data, Data::Map(_))) => maps
                .into_iter()
                // Reversed, as the map that is merged last replaces the others.
                .rev()
                .try_for_each(|map| self.merge(map)),
            _ => {
                let text = Text::new("<< merges only maps");
                let help = "write an alias of a map, or a list of such aliases";
                Err(diagnostic(value.span, text.help(help)))
            }
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|it| size(&it.value)).sum::<usize>(),
        _ => 1,
    }
}
