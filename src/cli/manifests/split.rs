//! Splits a file into documents as kubectl does: a stream of JSON objects, or YAML documents between lines
//! that begin with `---`.

use serde::de::IgnoredAny;

use super::span::Position;

/// The text of a document, and its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'t> {
    /// Its text.
    pub text: &'t str,
    /// Its start in the file.
    pub start: Position,
    /// Whether kubectl reads it as JSON. Else a text of JSON too is YAML.
    pub is_json: bool,
}

/// A separator line with content that kubectl refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSeparator {
    /// Its line.
    pub line: usize,
    /// The content after the dashes.
    pub rest: String,
}

/// The documents of a text, in their order.
pub fn documents(text: &str) -> Result<Vec<Document<'_>>, BadSeparator> {
    let mut found = Found {
        text,
        documents: Vec::new(),
        at: 0,
        position: Position::START,
    };
    let rest = json_objects(text, &mut found);
    yaml_documents(text, rest, &mut found)?;
    Ok(found.documents)
}

/// The documents so far.
struct Found<'t> {
    text: &'t str,
    documents: Vec<Document<'t>>,
    /// The last offset whose position was asked for.
    at: usize,
    position: Position,
}

impl Found<'_> {
    fn push(&mut self, start: usize, end: usize, is_json: bool) {
        let start_position = self.position(start);
        self.documents.push(Document {
            text: &self.text[start..end],
            start: start_position,
            is_json,
        });
    }

    /// The position of an offset that is not before the last one. Counts from the last one: counting from the
    /// start would take as long as all documents before, for each of them.
    fn position(&mut self, offset: usize) -> Position {
        self.position = self.position.after(&self.text[self.at..offset]);
        self.at = offset;
        self.position
    }
}

/// Takes JSON objects from the start, and returns the offset after them. YAML can follow, as YAML too can
/// begin with a brace.
fn json_objects(text: &str, found: &mut Found<'_>) -> usize {
    // Some editors write a byte order mark.
    let body = text.trim_start_matches('\u{feff}');
    if !body.trim_start().starts_with('{') {
        return 0;
    }
    let skipped = text.len() - body.len();
    let mut end = 0;
    let mut objects = serde_json::Deserializer::from_str(body).into_iter::<IgnoredAny>();
    // Stops at the first text that is not JSON. The reader of YAML reports what is wrong with it.
    while let Some(Ok(_)) = objects.next() {
        let object = &body[end..objects.byte_offset()];
        // The offset of the deserializer includes the blanks before the object.
        let start = skipped + end + (object.len() - object.trim_start().len());
        end = objects.byte_offset();
        found.push(start, skipped + end, true);
    }
    skipped + end
}

fn yaml_documents(text: &str, from: usize, found: &mut Found<'_>) -> Result<(), BadSeparator> {
    let mut start = from;
    let mut at = from;
    // A file may begin or end with a separator, and kubectl sends nothing for the empty part.
    let is_empty = |start: usize, end: usize| text[start..end].trim().is_empty();
    for line in text[from..].split_inclusive('\n') {
        // The rest of a JSON object's last line cannot be a separator.
        let whole_line = at == 0 || text.as_bytes()[at - 1] == b'\n';
        if let Some(rest) = line
            .strip_prefix("---")
            .filter(|_| whole_line)
            .map(str::trim)
        {
            if !rest.is_empty() && !rest.starts_with('#') {
                return Err(BadSeparator {
                    line: found.position(at).line,
                    rest: rest.to_owned(),
                });
            }
            if !is_empty(start, at) {
                found.push(start, at, false);
            }
            start = at + line.len();
        }
        at += line.len();
    }
    if !is_empty(start, text.len()) {
        found.push(start, text.len(), false);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(text: &str) -> Vec<(usize, usize)> {
        let found = documents(text).unwrap();
        found
            .iter()
            .map(|it| (it.start.line, it.start.column))
            .collect()
    }

    #[test]
    fn documents_begin_after_separators() {
        assert_eq!(
            starts("a: 1\n---\nb: 2\n--- # more\nc: 3\n"),
            [(1, 1), (3, 1), (5, 1)]
        );
        assert_eq!(starts("---\n---\n\na: 1\n---\n"), [(3, 1)]);
        assert_eq!(starts(""), []);
    }

    #[test]
    fn json_objects_follow_each_other() {
        assert_eq!(
            starts("{\"a\": 1}{\"b\": 2}\n {}"),
            [(1, 1), (1, 9), (2, 2)]
        );
        assert_eq!(starts("{\"a\": 1}\n---\nb: 2\n"), [(1, 1), (3, 1)]);
        assert_eq!(starts("{a: 1}\n"), [(1, 1)]);
    }

    #[test]
    fn content_after_a_separator_is_refused() {
        let refused = documents("a: 1\n--- b: 2\n").unwrap_err();
        assert_eq!((refused.line, refused.rest.as_str()), (2, "b: 2"));
    }
}
