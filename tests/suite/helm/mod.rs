//! The chart `deploy/helm/tsdp`: real Helm, and a real API server.

mod generated;
mod install;
mod kustomize;
mod matrix;
mod monitoring;
mod values;
