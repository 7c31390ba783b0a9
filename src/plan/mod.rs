//! From wishes and observed devices to calls: pure functions on plain data.
