//! The custom resources: their schema, their rules, the constants of conditions and reasons. Knows nothing of HTTP.
