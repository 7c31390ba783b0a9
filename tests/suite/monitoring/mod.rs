//! `deploy/monitoring`: the alerts with promtool, and every query against a real Prometheus.

mod alerts;
