/// The requests that the client can make: a bounded set, fit for a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each is the method of the client with this name"
)]
pub enum Endpoint {
    Devices,
    Device,
    DeleteDevice,
    ExpireKey,
    Routes,
    SetRoutes,
    SetAuthorized,
    SetTags,
    SetKeyExpiryDisabled,
    SetIpv4,
    SetName,
    Attributes,
    SetAttribute,
    DeleteAttribute,
    PatchAttributes,
    Token,
    TokenExchange,
}

impl Endpoint {
    /// The name as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Device => "device",
            Self::DeleteDevice => "delete_device",
            Self::ExpireKey => "expire_key",
            Self::Routes => "routes",
            Self::SetRoutes => "set_routes",
            Self::SetAuthorized => "set_authorized",
            Self::SetTags => "set_tags",
            Self::SetKeyExpiryDisabled => "set_key_expiry_disabled",
            Self::SetIpv4 => "set_ipv4",
            Self::SetName => "set_name",
            Self::Attributes => "attributes",
            Self::SetAttribute => "set_attribute",
            Self::DeleteAttribute => "delete_attribute",
            Self::PatchAttributes => "patch_attributes",
            Self::Token => "token",
            Self::TokenExchange => "token_exchange",
        }
    }

    /// The OAuth scope that permits it (the API specification; <https://tailscale.com/kb/1623>).
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::Devices | Self::Device => "devices:core:read",
            Self::DeleteDevice
            | Self::ExpireKey
            | Self::SetAuthorized
            | Self::SetTags
            | Self::SetKeyExpiryDisabled
            | Self::SetIpv4
            | Self::SetName => "devices:core",
            Self::Routes => "devices:routes:read",
            Self::SetRoutes => "devices:routes",
            Self::Attributes => "devices:posture_attributes:read",
            Self::SetAttribute | Self::DeleteAttribute | Self::PatchAttributes => {
                "devices:posture_attributes"
            }
            Self::Token | Self::TokenExchange => "of the requests that the token is for",
        }
    }

    /// Whether sending it twice does what sending it once does.
    ///
    /// Every write sets a value, except two: a device that came back in between would be deleted
    /// again, and a key that was renewed in between would be expired again.
    pub(super) fn is_repeatable(self) -> bool {
        !matches!(self, Self::DeleteDevice | Self::ExpireKey)
    }

    /// Whether the body of a success says anything. That of other writes is empty, `{}` or `null`,
    /// whatever the documentation says (tailscale#18253), and is not looked at.
    pub(super) fn has_answer(self) -> bool {
        matches!(
            self,
            Self::Devices
                | Self::Device
                | Self::Routes
                | Self::SetRoutes
                | Self::Attributes
                | Self::Token
                | Self::TokenExchange
        )
    }
}
