//! Manifests mean what kubectl takes them for.
