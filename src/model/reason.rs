/// The reason of a condition. The names are part of the contract: people alert on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The devices are in the desired state. Nothing to do.
    InSync,
    /// The observed state differs from the desired state. `Ready` explains how the controller
    /// handles it.
    OutOfSync,
    /// There is a difference, and the controller sends requests. Wait.
    Progressing,
    /// The object was accepted, but the controller has read nothing since its start. Wait.
    NotStarted,
    /// The policy is valid; of an invite: it has been accepted. Nothing to do.
    Accepted,

    /// No device has the name, or it does not have the required tags and users. Correct `device`,
    /// or bring the device into the tailnet.
    DeviceNotFound,
    /// No device matches `deviceSelector` now. Nothing to do: the policy adopts one that joins.
    NoDevices,
    /// More than one device has the name. Name the device by its nodeId, or approve one of them.
    Ambiguous,
    /// The bound device has another owner now, or it is gone and the device that has its name has
    /// another owner. If it is the right device, approve it as the message shows, or name it by its
    /// nodeId.
    IdentityChanged,
    /// The API reports a device in a form that cannot be read, and the policy depends on the
    /// unreadable field. The controller sends nothing that depends on it, and continues when it can
    /// read the field. If that lasts, report it: the message names the field.
    DeviceUnreadable,
    /// The bound device is not connected, and a connected one has the same hostname. If that one
    /// has replaced it, approve it as the message shows, or name it by its nodeId. Otherwise remove
    /// or rename it.
    Superseded,
    /// The change could cut the device off and is not allowed. Add it to `allowDisruption`, or
    /// remove the field.
    DisruptionHeld,
    /// A one-shot action (`expireKeyAt`) is held because it would have no effect. Do what the
    /// message says, or remove the field.
    ActionHeld,
    /// The changes are pending approval. Approve them as the message shows, or remove the fields.
    AwaitingApproval,
    /// The policy would change more devices within an hour than the tailnet allows. Correct its
    /// selector if it matches too many; otherwise approve the changes on the `TailscaleTailnet`, or
    /// raise its `maxChangedDevices`.
    LimitHeld,
    /// The change would make a policy release its device: the policy requires tags that the change
    /// removes. The controller sends nothing. Edit one of the two policies.
    SelectorFeedback,
    /// The controller clears devices that the policy has released, because of `deletionPolicy:
    /// Clear`. Wait, or do what the message says.
    Clearing,
    /// The policy targets more devices than its status can record: 10,000 under `deletionPolicy:
    /// Clear`, for which the controller then sends nothing, and 5,000 whose keys expire at one
    /// time. Narrow `deviceSelector`, or write `deletionPolicy: Retain`.
    TooManyDevices,
    /// No rule of the tailnet's `allowedPolicies` allows the policy, or a field that it declares
    /// for a device. Add the rule that the message shows, or remove the field.
    NotAllowed,
    /// The policy would change a device that the tailnet's `protectedDevices` protects. The
    /// controller sends nothing for that device. Exclude the device from the policy.
    Protected,
    /// The policy or its tailnet is suspended: the controller sends nothing for it. Remove
    /// `suspend` to continue.
    Suspended,
    /// There is a difference, and the policy only observes. Write `enforcement: Enforce` to apply
    /// the desired state.
    Observed,
    /// The controller authorizes a device only after all its other settings are applied, and a
    /// setting of another policy is held, suspended or fails. Check the other policies of the
    /// device.
    DependencyNotReady,
    /// Another policy declares another value for the same field and takes precedence. Edit one of
    /// the two policies.
    Conflicted,
    /// The spec cannot be parsed, or declares something impossible. Correct it as the message says.
    Invalid,

    /// The invite exists and its URL is in the Secret; nobody has accepted it yet. Nothing to do.
    Invited,
    /// The tailnet's list no longer has the invite: it was withdrawn or has expired. Delete the
    /// `TailscaleDeviceInvite`, and create it again if you still want the invite.
    InviteGone,
    /// The invite exists, but the controller cannot write its URL to the Secret. The message says
    /// why.
    SecretNotWritten,

    /// There is no `TailscaleTailnet` of that name. Create it, or correct `tailnetRef`.
    TailnetNotFound,
    /// The controller cannot read the tailnet's devices at present. The status of the
    /// `TailscaleTailnet` says why.
    TailnetUnavailable,
    /// The controller can read the tailnet's devices. Nothing to do.
    Connected,
    /// The Secret is missing or lacks a key, or the cluster issues no token for workload identity.
    /// Create the Secret in the controller's own namespace, or do what the message says.
    CredentialsMissing,
    /// The API rejects the credential (401). Put a valid one into the Secret.
    CredentialRejected,
    /// The credential lacks a permission (403). Give it the scope or role that the message names.
    Forbidden,
    /// The tailnet's plan does not include the feature. Change the plan, or remove the field.
    PlanRefused,
    /// The API did not answer: name resolution, network, TLS or a time-out. The controller retries.
    ApiUnreachable,
    /// The API failed (5xx), or its response cannot be parsed. The controller retries.
    ApiError,
    /// The API limits the rate of requests (429). The controller retries at the time that the API
    /// named.
    RateLimited,

    /// The credential does not own a tag, or the policy file does not know it. Add it to `tagOwners`.
    TagsNotPermitted,
    /// Another device has the IPv4 address. Choose another one, or free it.
    AddressInUse,
    /// The policies would swap the IPv4 addresses of devices. Declare a free address for one of the
    /// devices first.
    AddressSwap,
    /// The tailnet has the posture attribute with another type, or its key in another case. Write
    /// it as the tailnet has it, or use another key.
    AttributeConflict,
    /// Another device has the name, or had it until a short while ago. Choose another one, or wait.
    NameTaken,
    /// The API refused the change permanently (another 4xx). Correct it as the message says.
    Refused,
    /// Another writer keeps changing the setting: three times within an hour. The controller tries
    /// once an hour, until the setting has stayed in sync for an hour. Find the other writer, or
    /// remove the field.
    Contested,
    /// The API accepted the request, but the setting did not change, or tailnet lock keeps an
    /// authorized device out. Check the device in the admin console.
    NotEffective,
    /// The device's posture attributes have not been read yet, or cannot be read. The controller
    /// retries.
    AttributesUnread,
    /// Some changes succeeded and others failed. The controller retries the failures.
    PartiallyApplied,
}

impl Reason {
    /// The reason as a condition has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "InSync",
            Self::OutOfSync => "OutOfSync",
            Self::Progressing => "Progressing",
            Self::NotStarted => "NotStarted",
            Self::Accepted => "Accepted",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::NoDevices => "NoDevices",
            Self::Ambiguous => "Ambiguous",
            Self::IdentityChanged => "IdentityChanged",
            Self::DeviceUnreadable => "DeviceUnreadable",
            Self::Superseded => "Superseded",
            Self::DisruptionHeld => "DisruptionHeld",
            Self::ActionHeld => "ActionHeld",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::LimitHeld => "LimitHeld",
            Self::SelectorFeedback => "SelectorFeedback",
            Self::Clearing => "Clearing",
            Self::TooManyDevices => "TooManyDevices",
            Self::NotAllowed => "NotAllowed",
            Self::Protected => "Protected",
            Self::Suspended => "Suspended",
            Self::Observed => "Observed",
            Self::DependencyNotReady => "DependencyNotReady",
            Self::Conflicted => "Conflicted",
            Self::Invalid => "Invalid",
            Self::Invited => "Invited",
            Self::InviteGone => "InviteGone",
            Self::SecretNotWritten => "SecretNotWritten",
            Self::TailnetNotFound => "TailnetNotFound",
            Self::TailnetUnavailable => "TailnetUnavailable",
            Self::Connected => "Connected",
            Self::CredentialsMissing => "CredentialsMissing",
            Self::CredentialRejected => "CredentialRejected",
            Self::Forbidden => "Forbidden",
            Self::PlanRefused => "PlanRefused",
            Self::ApiUnreachable => "ApiUnreachable",
            Self::ApiError => "ApiError",
            Self::RateLimited => "RateLimited",
            Self::TagsNotPermitted => "TagsNotPermitted",
            Self::AddressInUse => "AddressInUse",
            Self::AddressSwap => "AddressSwap",
            Self::AttributeConflict => "AttributeConflict",
            Self::NameTaken => "NameTaken",
            Self::Refused => "Refused",
            Self::Contested => "Contested",
            Self::NotEffective => "NotEffective",
            Self::AttributesUnread => "AttributesUnread",
            Self::PartiallyApplied => "PartiallyApplied",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
