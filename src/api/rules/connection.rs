//! Tailnets, Secrets and invites.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{Code, naming, rule};

/// A tailnet in the path of a request.
pub(in crate::api) fn tailnet(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(Code::InvalidTailnet,
            // It becomes a segment of a path, so no slash; the client escapes everything else. Older
            // tailnets have a domain or an email address as their name, and people use +.
            r"self.matches('^[^/\\\\[:space:][:cntrl:]]+$')",
            "is not a valid tailnet", "write its ID, such as T1234CNTRL, or - for the credential's own",
        )],
    })
}

/// The address of the API.
pub(in crate::api) fn api_url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [
            naming(Code::InvalidApiUrl,
                // http is for simulators. `getHost` is empty for `https:api`, which isURL accepts.
                "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",
                "is not a valid address of an API", "write one such as https://api.tailscale.com",
            ),
            naming(Code::CredentialInUrl,
                // A TailscaleTailnet is readable by more people than a Secret.
                "!self.contains('@')",
                "exposes a credential to everyone", "remove the part before the @, and put the \
                 credential into the Secret",
            ),
            naming(Code::PathInApiUrl,
                // The client appends /api/v2 and a path: they would end up behind a query.
                "!self.contains('?') && !self.contains('#') && !self.contains('/api/v2')",
                "has more than the address", "remove /api/v2, ? and # with all that follows, as in \
                 https://api.tailscale.com",
            ),
        ],
    })
}

/// An interval of at least one second.
pub(in crate::api) fn interval(_: &mut SchemaGenerator) -> Schema {
    // Six digits for each unit, so that CEL's duration() cannot overflow its 64 bits of nanoseconds.
    let is_duration = "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != ''";
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [
            naming(Code::InvalidDuration,
                is_duration,
                "is not a valid duration", "write hours, minutes and seconds, such as 30s, 1m or 1h30m",
            ),
            naming(Code::IntervalTooShort,
                // One error for each mistake: this holds for every other text.
                &format!("!({is_duration}) || duration(self) >= duration('1s')"),
                "is too short", "write at least 1s",
            ),
        ],
    })
}

/// A number of devices, or a percentage. A quoted number is a number too, as elsewhere in Kubernetes.
pub(in crate::api) fn max_changed_devices(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        // No "type" beside it: the API server refuses a schema with both.
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
        "x-kubernetes-validations": [rule(Code::InvalidChangeLimit,
            // The upper bound is that of IntOrString, which the controller reads.
            "type(self) == int ? self >= 1 && self <= 2147483647 \
                     : self.matches('^([1-9][0-9]{0,8}|([1-9][0-9]?|100)%)$')",
            "the limit is not valid", "write a number of devices, such as 20, or a percentage from 1% \
                        to 100%, which means no limit",
        )],
    })
}

/// Where an invite is sent.
pub(in crate::api) fn email(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 320,
        "x-kubernetes-validations": [
            naming(Code::InvalidEmail,
                "self.matches('^[A-Za-z0-9.!#$%&\\'*+/=?^_{|}~-]+@[A-Za-z0-9-]+([.][A-Za-z0-9-]+)+$')",
                "is not a valid email address", "write one such as partner@example.com",
            ),
            // RFC 5321 limits an address to 254 characters; the maximum above is only for the cost
            // of the rule.
            naming(Code::EmailTooLong, "self.size() <= 254", "is too long", "write at most 254 characters"),
        ],
    })
}

/// The name of a Secret.
pub(in crate::api) fn secret_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(Code::InvalidSecretName,
            "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
            "is not a valid name of a Secret", "write lower-case letters, digits, dashes and dots, such as \
             partner-invite",
        )],
    })
}
