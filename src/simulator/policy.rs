//! The tailnet's policy file. Only `tagOwners` has an effect here.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::{Value, json};

use super::response::Refusal;

/// A parsed policy file.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// `HuJSON`, as it was posted.
    pub text: String,
    /// The same without comments.
    pub json: Value,
    tag_owners: BTreeSet<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::with_tags([])
    }
}

impl Policy {
    /// The default policy file of a tailnet.
    pub fn with_tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let tag_owners: BTreeSet<String> = tags.into_iter().map(str::to_owned).collect();
        let owners: BTreeMap<_, _> = tag_owners
            .iter()
            .map(|tag| (tag, ["autogroup:admin"]))
            .collect();
        let json = json!({
            "tagOwners": owners,
            "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        });
        Self {
            text: format!("// Access control policy of a simulated tailnet\n{json:#}\n"),
            json,
            tag_owners,
        }
    }

    /// Parses a policy file.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        // HuJSON is JSON with comments and trailing commas, and nothing else.
        let options = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let json: Value = parse_to_serde_value(text, &options).map_err(|error| {
            Refusal::bad_request(format!("policy file is not valid HuJSON: {error}"))
        })?;
        if !json.is_object() {
            return Err(Refusal::bad_request("policy file is not a JSON object"));
        }
        let owners = match &json["tagOwners"] {
            Value::Null => BTreeSet::new(),
            Value::Object(owners) => owners.keys().cloned().collect(),
            _ => return Err(Refusal::bad_request("tagOwners is not a JSON object")),
        };
        // No device can have such a tag, so nobody would notice the typo.
        if let Some(tag) = owners.iter().find(|tag| !is_tag(tag)) {
            return Err(Refusal::bad_request(format!(
                "tagOwners: \"{tag}\" is not a valid tag"
            )));
        }
        Ok(Self {
            text: text.to_owned(),
            json,
            tag_owners: owners,
        })
    }

    /// Whether the policy file has owners for this tag.
    pub fn owns(&self, tag: &str) -> bool {
        self.tag_owners.contains(tag)
    }

    /// The value that `If-Match` compares.
    pub fn etag(&self) -> String {
        // No cryptography: it only finds that the text has changed.
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// `tag:`, a letter, then letters, digits and dashes (`tailcfg.CheckTag`).
pub(super) fn is_tag(text: &str) -> bool {
    let Some(name) = text.strip_prefix("tag:") else {
        return false;
    };
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || it == '-')
}
