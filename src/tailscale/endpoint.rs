use crate::model::Setting;

/// The requests that the client can send: a bounded set, fit for the label of a metric.
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
    Set(Setting),
    SetTags,
    Attributes,
    SetAttribute,
    DeleteAttribute,
    PatchAttributes,
    DeviceInvites,
    CreateDeviceInvite,
    TagOwners,
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
            Self::Set(setting) => setting.request(),
            Self::SetTags => "set_tags",
            Self::Attributes => "attributes",
            Self::SetAttribute => "set_attribute",
            Self::DeleteAttribute => "delete_attribute",
            Self::PatchAttributes => "patch_attributes",
            Self::DeviceInvites => "device_invites",
            Self::CreateDeviceInvite => "create_device_invite",
            Self::TagOwners => "tag_owners",
            Self::Token => "token",
            Self::TokenExchange => "token_exchange",
        }
    }

    /// What the credential needs for it: mostly an OAuth scope (the API specification;
    /// <https://tailscale.com/kb/1623>).
    pub(super) fn needs(self) -> &'static str {
        match self {
            // "cannot be created using an API access token generated from an OAuth client"
            Self::CreateDeviceInvite => {
                "a user's own API access token; no OAuth client may do this"
            }
            Self::DeviceInvites => "the scope device_invites:read",
            Self::Devices | Self::Device => "the scope devices:core:read",
            Self::DeleteDevice | Self::ExpireKey | Self::Set(_) | Self::SetTags => {
                "the scope devices:core"
            }
            Self::Routes => "the scope devices:routes:read",
            Self::SetRoutes => "the scope devices:routes",
            Self::Attributes => "the scope devices:posture_attributes:read",
            Self::SetAttribute | Self::DeleteAttribute | Self::PatchAttributes => {
                "the scope devices:posture_attributes"
            }
            Self::TagOwners => "the scope policy_file:read",
            Self::Token | Self::TokenExchange => "the scope of the requests that the token is for",
        }
    }

    /// Whether it changes nothing, so that sending it twice does no harm. Requests for a token count as
    /// reads: a second token is as good as the first.
    pub(super) fn is_read(self) -> bool {
        matches!(
            self,
            Self::Devices
                | Self::Device
                | Self::Routes
                | Self::Attributes
                | Self::DeviceInvites
                | Self::TagOwners
                | Self::Token
                | Self::TokenExchange
        )
    }

    /// Whether the body of a successful answer has content. Other writes answer with an empty body, `{}` or
    /// `null`, whatever the documentation says (tailscale#18253); that body is ignored.
    pub(super) fn has_answer(self) -> bool {
        matches!(
            self,
            Self::Devices
                | Self::Device
                | Self::Routes
                | Self::SetRoutes
                | Self::Attributes
                | Self::DeviceInvites
                | Self::CreateDeviceInvite
                | Self::TagOwners
                | Self::Token
                | Self::TokenExchange
        )
    }
}
