//! Parses the path and query of a request.

use http::Uri;
use percent_encoding::percent_decode_str;

/// Path and query of a request.
pub(super) struct Target {
    /// As received, with its query.
    pub raw: String,
    /// The path without query, decoded: `custom%3Atier` is `custom:tier`.
    pub path: String,
    /// The parts of the path between `/`, each decoded on its own.
    pub segments: Vec<String>,
    /// The pairs of the query in their order.
    pub query: Vec<(String, String)>,
}

impl Target {
    pub fn of(uri: &Uri) -> Self {
        let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = uri.query().unwrap_or_default().as_bytes();
        let path = uri.path();
        Self {
            raw: uri
                .path_and_query()
                .map_or(path, |it| it.as_str())
                .to_owned(),
            path: decode(path),
            // Split before it is decoded: `%2F` within a key is no separator.
            segments: path
                .strip_prefix('/')
                .unwrap_or(path)
                .split('/')
                .map(decode)
                .collect(),
            query: form_urlencoded::parse(query).into_owned().collect(),
        }
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        pairs
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }
}
