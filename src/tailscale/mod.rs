//! The client of the Tailscale v2 API. Knows nothing of Kubernetes.
