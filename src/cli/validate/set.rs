//! What only the whole set shows.

use crate::cli::manifests::{Fault, Manifests};

/// All that is wrong between objects that are right by themselves.
pub fn check(_manifests: &Manifests) -> Vec<Fault> {
    Vec::new()
}
