//! Recognizes files that are no manifests: YAML reads many of them as one long string.

/// What the bytes of a file are, if they are no text. The first bytes of each format.
const MAGIC: [(&[u8], &str); 7] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"%PDF-", "a PDF"),
];

/// Why a file is no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYaml {
    /// What it is instead.
    pub what: &'static str,
    /// What to do.
    pub help: &'static str,
}

impl NotYaml {
    fn file(what: &'static str) -> Self {
        let help = "give a file of manifests in YAML or JSON";
        Self { what, help }
    }

    fn page(what: &'static str) -> Self {
        let help = "check the URL or the login of its download, and give a file of manifests";
        Self { what, help }
    }
}

/// The text of a file. Decodes UTF-16 with a byte order mark, as kubectl does.
pub fn decode(bytes: Vec<u8>) -> Result<String, NotYaml> {
    let text = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => None,
    };
    if let Some(text) = text {
        return Ok(text);
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let known = MAGIC.iter().find(|(start, _)| bytes.starts_with(start));
        match known {
            Some((_, what)) => NotYaml::file(what),
            None if bytes.contains(&0) => NotYaml::file("a binary file"),
            None => NotYaml {
                what: "no text in UTF-8",
                help: "save it as UTF-8",
            },
        }
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|bytes| unit(*bytes)).collect();
    rest.is_empty()
        .then(|| String::from_utf16(&units).ok())
        .flatten()
}

/// What a text is instead of YAML or JSON.
pub fn recognize(text: &str) -> Option<NotYaml> {
    let start =
        text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
    let known = MAGIC.iter().find(|(magic, _)| {
        // Two letters alone may well begin a YAML key.
        magic.len() > 2 && start.as_bytes().starts_with(magic)
    });
    if let Some((_, what)) = known {
        return Some(NotYaml::file(what));
    }
    if start.contains('\0') {
        return Some(NotYaml::file("a binary file"));
    }
    if start.starts_with("-----BEGIN ") {
        return Some(NotYaml::file("a key or certificate in PEM"));
    }
    // `<<` merges maps; no other YAML of an object begins like this.
    let tag = start
        .strip_prefix('<')
        .filter(|rest| !rest.starts_with('<'))?;
    let tag = tag.get(..12).unwrap_or(tag).to_ascii_lowercase();
    if tag.starts_with("!doctype htm") || tag.starts_with("html") {
        return Some(NotYaml::page("an HTML page"));
    }
    let is_markup =
        tag.starts_with(|first: char| first.is_ascii_alphabetic() || "!?/".contains(first));
    is_markup.then(|| NotYaml::page("a page of HTML or XML"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_binary_files_are_recognized() {
        for (text, what) in [
            ("\n <!DOCTYPE html><html>", Some("an HTML page")),
            ("<HTML>\n<head>", Some("an HTML page")),
            ("<?xml version=\"1.0\"?>", Some("a page of HTML or XML")),
            (
                "<Error><Code>AccessDenied</Code></Error>",
                Some("a page of HTML or XML"),
            ),
            ("%PDF-1.7\n", Some("a PDF")),
            ("a: 1\n\0", Some("a binary file")),
            (
                "-----BEGIN PRIVATE KEY-----\n",
                Some("a key or certificate in PEM"),
            ),
            ("<<: {a: 1}\n", None),
            ("%YAML 1.1\n---\na: 1\n", None),
            ("MZ: 1\n", None),
            ("PK: 1\n", None),
            ("a: <b>\n", None),
        ] {
            assert_eq!(recognize(text).map(|it| it.what), what, "{text:?}");
        }
    }

    #[test]
    fn bytes_are_decoded_as_kubectl_does() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| {
            let units = std::iter::once(0xfeff).chain(text.encode_utf16());
            units.flat_map(bytes).collect::<Vec<u8>>()
        };
        for bytes in [
            b"a: \xc3\xa9".to_vec(),
            utf16("a: é", u16::to_le_bytes),
            utf16("a: é", u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok("a: é"));
        }
        for (bytes, what) in [
            (&b"\x1f\x8b\x08\x00\xff"[..], "a gzip archive"),
            (b"\xff\x00\x01", "a binary file"),
            (b"a: \xff", "no text in UTF-8"),
        ] {
            assert_eq!(decode(bytes.to_vec()).unwrap_err().what, what);
        }
    }
}
