//! The Tailscale API as a stateful server: for the demo, the tests, and other clients.
