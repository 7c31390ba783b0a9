//! The names of the rules, which `tsdp validate` shows with each violation.

/// Declares the codes, with their name and meaning.
macro_rules! codes {
    ($($code:ident, $name:literal, $meaning:literal;)+) => {
        /// The name of a rule. Rules that refuse the same mistake in several fields share it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum RuleCode {
            $(#[doc = $meaning] $code,)+
        }

        impl RuleCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// The name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $name,)+ }
            }

            /// What the rule refuses, as a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)+ }
            }
        }
    };
}

codes! {
    AttributeKeyCase, "attribute-key-case", "Two attribute keys differ only in case.";
    AttributeKeyTooLong, "attribute-key-too-long", "An attribute key has more than 128 characters.";
    AttributeNamespace, "attribute-namespace", "An attribute key is outside of the namespace `custom:`.";
    CredentialInUrl, "credential-in-url", "`apiURL` contains a credential.";
    DeleteInactiveOfOneDevice, "delete-inactive-of-one-device", "`deleteInactive` is set without `deviceSelector`.";
    DeletionsOutOfRange, "deletions-out-of-range", "`maxPerDay` is not between 1 and 1000.";
    DeviceAndSelector, "device-and-selector", "`device` and `deviceSelector` are both given.";
    EmailTooLong, "email-too-long", "An email address has more than 254 characters.";
    EmptyExpression, "empty-expression", "An expression is empty.";
    EmptyHostname, "empty-hostname", "A hostname is empty.";
    EmptyList, "empty-list", "A list or map is empty, which would match either everything or nothing.";
    EmptyPattern, "empty-pattern", "A pattern is empty and matches nothing.";
    EmptySelector, "empty-selector", "A selector has no criterion, so that it would match every device.";
    ExitNodeRoute, "exit-node-route", "`enabledRoutes` has a route of an exit node, which `exitNode` owns.";
    ExpireKeyThatNeverExpires, "expire-key-that-never-expires", "`expireKeyAt` is set, but `keyExpiry` is `Disabled`.";
    ExpressionTooLong, "expression-too-long", "An expression has more than 512 characters.";
    HostBits, "host-bits", "A CIDR has bits set after its prefix.";
    InactivityTooShort, "inactivity-too-short", "`inactiveFor` is shorter than 24h.";
    IntegerOutOfRange, "integer-out-of-range", "An integer is too large for JSON to keep it exactly.";
    IntervalTooShort, "interval-too-short", "An interval is shorter than 1s.";
    InvalidApiUrl, "invalid-api-url", "`apiURL` is not the address of an API.";
    InvalidAttributeKey, "invalid-attribute-key", "An attribute key has characters that the API does not accept.";
    InvalidAttributeString, "invalid-attribute-string", "The string of an attribute is too long, or has characters that the API does not accept.";
    InvalidChangeLimit, "invalid-change-limit", "`maxChangedDevices` is neither a number nor a percentage.";
    InvalidCidr, "invalid-cidr", "A route is not a CIDR.";
    InvalidDeviceId, "invalid-device-id", "A numeric device ID is not a number.";
    InvalidDeviceName, "invalid-device-name", "The server would rewrite the name of a device.";
    InvalidDuration, "invalid-duration", "A duration has no unit, or one that does not exist.";
    InvalidEmail, "invalid-email", "An email address is not valid.";
    InvalidIpv4, "invalid-ipv4", "An IPv4 address is not valid.";
    InvalidLabelKey, "invalid-label-key", "The key of a label is not valid in Kubernetes.";
    InvalidLabelValue, "invalid-label-value", "The value of a label is not valid in Kubernetes.";
    InvalidMagicDnsName, "invalid-magicdns-name", "A device is named by something that is not its MagicDNS name.";
    InvalidNamespace, "invalid-namespace", "The name of a namespace is not valid in Kubernetes.";
    InvalidNodeId, "invalid-node-id", "A nodeId is not valid.";
    InvalidSecretName, "invalid-secret-name", "The name of a Secret is not valid in Kubernetes.";
    InvalidTag, "invalid-tag", "A tag has characters that the API does not accept.";
    InvalidTailnet, "invalid-tailnet", "A tailnet is not valid.";
    InvalidTime, "invalid-time", "A time is not in RFC 3339, or does not exist.";
    Ipv4OutsideTailnet, "ipv4-outside-tailnet", "An IPv4 address is outside of 100.64.0.0/10.";
    LastTag, "last-tag", "`tags` is empty, but the API cannot remove the last tag of a device.";
    MissingAllowDisruption, "missing-allow-disruption", "A setting cuts a device off, and `allowDisruption` does not name it.";
    MissingAttributeValue, "missing-attribute-value", "An attribute has no value.";
    MissingDevice, "missing-device", "A policy has neither `device` nor `deviceSelector`.";
    MissingIdentity, "missing-identity", "A device is named by none of `nodeId`, `id`, `name` and `hostname`.";
    MissingNamespaces, "missing-namespaces", "`namespaces` has neither `names` nor `matchLabels`.";
    MissingTagPrefix, "missing-tag-prefix", "A tag lacks its prefix `tag:`.";
    NotALogin, "not-a-login", "A user is not a full login.";
    PathInApiUrl, "path-in-api-url", "`apiURL` has more than the address.";
    PriorityOutOfRange, "priority-out-of-range", "`priority` is not between -1000 and 1000.";
    ReservedIpv4, "reserved-ipv4", "Tailscale reserves an IPv4 address.";
    SameForManyDevices, "same-for-many-devices", "A selector gives several devices a value that only one can have.";
    SeveralAttributeValues, "several-attribute-values", "An attribute has more than one value.";
    SeveralIdentities, "several-identities", "A device is named by more than one of `nodeId`, `id`, `name` and `hostname`.";
    UnsupportedMacro, "unsupported-macro", "An expression has a macro over a list, which `tsdp` does not support.";
    UntrustedClaims, "untrusted-claims", "A selector has neither `tags` nor `users`, and does not set `trustClaims`.";
}
