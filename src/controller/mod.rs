//! The Kubernetes side: watches, status, events, leader election, health and metrics.

pub mod lease;
