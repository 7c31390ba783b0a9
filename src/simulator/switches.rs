//! Unverified behavior of the live API as switches, so that clients can be tried with every variant. `GET
//! /_sim/switches` shows them, and `PUT` sets those in its body.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::response::Refusal;

/// All switches with their present settings.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switches {
    /// Whether giving tags to a device of a user turns its key expiry off.
    pub tags_disable_key_expiry: bool,
    /// Whether a device's IPv6 changes with its IPv4.
    pub ipv6_follows_ipv4: bool,
    /// The response to setting a reserved IPv4.
    pub reserved_ipv4: Refusal,
    /// The response to setting an IPv4 outside of the pool.
    pub ipv4_outside_pool: Refusal,
    /// The response to setting an IPv4 of another device.
    pub ipv4_in_use: Refusal,
    /// Whether setting the IPv4 that the device already has is refused as in use.
    pub own_ipv4_is_in_use: bool,
    /// Whether a batch of attributes is atomic. Otherwise everything up to the first bad entry is written.
    pub batch_is_atomic: bool,
    /// The most devices that one batch may name.
    pub batch_max_nodes: Option<usize>,
    /// Whether a batch ignores unknown devices. Otherwise it answers 404.
    pub batch_skips_unknown_nodes: bool,
    /// Whether a batch entry without `expiry` keeps the present expiry, as a JSON merge patch does.
    /// Otherwise it clears it, as the single write does.
    pub batch_keeps_expiry: bool,
    /// Whether the list withholds routes from tokens without the scope `devices:routes:read`.
    pub fields_all_needs_routes_scope: bool,
    /// The handling of a route with host bits.
    pub route_host_bits: HostBits,
    /// Whether the tailnet requires device approval.
    pub device_approval: bool,
    /// Whether `authorized: false` is accepted if the tailnet requires no device approval.
    pub deauthorize_without_approval: bool,
    /// The response to a value of another type than the key's first one.
    pub attribute_type_conflict: Refusal,
    /// The response to a key that differs from an existing one only in case.
    pub attribute_case_collision: Refusal,
    /// Whether deleting an attribute that the device does not have answers 404. Otherwise 200.
    pub missing_attribute_is_404: bool,
    /// The response to a successful write of an attribute.
    pub attribute_write_answer: AttributeWriteAnswer,
    /// Whether the plan allows custom attributes. Otherwise writes answer 403.
    pub custom_attributes_in_plan: bool,
    /// Whether OAuth tokens see devices that are shared in.
    pub external_devices_for_oauth: bool,
    /// How long a freed name stays taken for other devices.
    pub freed_name_seconds: u32,
    /// How long an OAuth access token is valid.
    pub token_lifetime_seconds: u32,
    /// The number of requests before 429.
    pub rate_limit: Option<RateLimit>,
    /// Whether a connected device has `lastSeen`, the time of the response. Both forms were seen live.
    pub connected_has_last_seen: bool,
    /// Whether `isEphemeral` and `tags` are sent although they are false or empty. Recorded answers omit them.
    pub sends_empty_fields: bool,
    /// Fields of devices, by nodeId, that responses show as these values and not as what they are: to try
    /// what a client does with a device that it cannot read.
    pub reported_as: BTreeMap<String, Map<String, Value>>,
    /// The offset of the simulator's clock from the machine's. It lets expiries pass without waiting.
    pub clock_ahead_seconds: i32,
}

/// The handling of a route whose address has bits beyond its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostBits {
    /// 400.
    Refuse,
    /// `10.0.0.1/16` becomes `10.0.0.0/16`.
    Mask,
    /// The route stays as it was sent.
    Keep,
}

/// The body of a successful write of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeWriteAnswer {
    /// `null`, which the live API sends (tailscale#18253).
    Null,
    /// `{}`, as in the page of 2024-05.
    Empty,
    /// The device's attributes, as in the specification.
    Attributes,
}

/// At most `requests` in each span of `seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in one span.
    pub requests: u32,
    /// The length of the span.
    pub seconds: u32,
    /// The form of `Retry-After` in the response.
    pub retry_after: RetryAfter,
}

/// The forms of the header `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds,
    /// An HTTP date.
    Date,
    /// No such header.
    Absent,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            tags_disable_key_expiry: false,
            ipv6_follows_ipv4: false,
            reserved_ipv4: Refusal::bad_request(
                "bad IPv4 address: address is reserved for use by Tailscale",
            ),
            ipv4_outside_pool: Refusal::bad_request(
                "bad IPv4 address: address is not in the tailnet's IP pool",
            ),
            // 500, not 409: measured live.
            ipv4_in_use: Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "address already in use"),
            own_ipv4_is_in_use: false,
            batch_is_atomic: true,
            batch_max_nodes: None,
            batch_skips_unknown_nodes: false,
            batch_keeps_expiry: true,
            fields_all_needs_routes_scope: false,
            route_host_bits: HostBits::Refuse,
            device_approval: true,
            deauthorize_without_approval: false,
            attribute_type_conflict: Refusal::bad_request(
                "attribute value type does not match the type of existing values for this key",
            ),
            attribute_case_collision: Refusal::bad_request(
                "attribute key differs only in case from an existing key",
            ),
            missing_attribute_is_404: false,
            attribute_write_answer: AttributeWriteAnswer::Null,
            custom_attributes_in_plan: true,
            external_devices_for_oauth: false,
            freed_name_seconds: 60,
            token_lifetime_seconds: 3600,
            rate_limit: None,
            // As in recorded answers.
            connected_has_last_seen: true,
            sends_empty_fields: false,
            reported_as: BTreeMap::new(),
            clock_ahead_seconds: 0,
        }
    }
}
