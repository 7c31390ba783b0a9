//! `deploy/monitoring`: the alerts with promtool, and every query against a real Prometheus.

mod alerts;
mod dashboard;
mod incidents;
mod picture;
mod queries;
mod scraper;

pub use scraper::Prometheus;
