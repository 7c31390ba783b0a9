//! Reads devices from a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

/// Why a file of devices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file does not have the shape of the list response.
    #[error("{path}: {source}; expected the shape of the list answer: {{\"devices\": [ … ]}}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The position and the error.
        source: serde_yaml::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceList {
    devices: Vec<Value>,
}

/// Reads the devices of a file, JSON or YAML, in the shape of the list response.
pub fn read_devices(path: &Path) -> Result<Vec<Value>, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    // JSON is YAML.
    let list: DeviceList = serde_yaml::from_str(&text).map_err(|source| LoadError::Shape {
        path: path.to_owned(),
        source,
    })?;
    Ok(list.devices)
}
