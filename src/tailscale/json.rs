//! Reads JSON that must have a shape, and says where it has another.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Why a JSON is not what the API returns, and where in it.
#[derive(Debug)]
pub(super) struct Mismatch {
    path: String,
    why: String,
}

impl Mismatch {
    /// A mismatch of the whole JSON.
    pub fn new(why: &str) -> Self {
        Self {
            path: String::new(),
            why: why.to_owned(),
        }
    }

    /// The same mismatch in a larger JSON that has this one at `path`.
    pub fn within(self, path: &str) -> Self {
        let separator = match self.path.as_str() {
            "" => "",
            inner if inner.starts_with('[') => "",
            _ => ".",
        };
        Self {
            path: format!("{path}{separator}{}", self.path),
            ..self
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.why),
            path => write!(f, "{path}: {}", self.why),
        }
    }
}

/// Reads one JSON object, and nothing after it.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Mismatch> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let decoded: Result<Object<T>, _> = serde_path_to_error::deserialize(&mut json);
    match decoded {
        // Trailing data means that this is not one answer of the API.
        Ok(object) => match json.end() {
            Ok(()) => Ok(object.0),
            Err(error) => Err(Mismatch::new(&format!("after the JSON: {error}"))),
        },
        Err(error) => {
            let path = error.path().to_string();
            // serde_path_to_error writes the root as a dot.
            let path = if path == "." { String::new() } else { path };
            let why = error.into_inner().to_string();
            Err(Mismatch { path, why })
        }
    }
}

/// A JSON object.
///
/// serde also reads a struct from an array, by position: `[[]]` would be a list of no devices. The API never
/// means that.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object<T>, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}
