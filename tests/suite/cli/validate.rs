//! `tsdp validate` as a process.
