//! For each tailnet one engine that owns the snapshot and decides what to do next.
