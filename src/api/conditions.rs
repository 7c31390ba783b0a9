//! The words of a status: types of conditions, and reasons.

/// The last word: whether everything that is wished holds.
pub const READY: &str = "Ready";
/// Work is under way or will be retried. Absent otherwise; never beside [`STALLED`].
pub const RECONCILING: &str = "Reconciling";
/// Nothing but an edit helps. Absent otherwise; never beside [`RECONCILING`].
pub const STALLED: &str = "Stalled";
/// Whether there was no difference at the last look; unknown before attributes have been read.
pub const IN_SYNC: &str = "InSync";
/// Whether the policy is valid and permitted; of an invite: whether somebody has accepted it.
pub const ACCEPTED: &str = "Accepted";

/// Why a condition is as it is. The names are part of the contract: people alert on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Everything that is wished holds. Nothing to do.
    InSync,
    /// There is a difference between what is and what is wished. `Ready` says what becomes of it.
    OutOfSync,
    /// There is a difference, and calls are being made. Wait.
    Progressing,
    /// The object was accepted, but nothing has been read since the start. Wait.
    NotStarted,
    /// The policy is valid; of an invite: somebody has accepted it. Nothing to do.
    Accepted,

    /// No device has the name, or it does not have the tags and users that are asked for. Correct
    /// `device`, or bring the device into the tailnet.
    DeviceNotFound,
    /// No device fits the `deviceSelector` now. Nothing to do: one that joins is taken up.
    NoDevices,
    /// More than one device has the name. Name the device by its nodeId, or approve one of them.
    Ambiguous,
    /// The bound device is gone, and the one that bears its name now has another owner. Approve
    /// the new one as the message says if it is the right one, or name the device by its nodeId.
    IdentityChanged,
    /// A change could cut the device off and is not permitted. Add it to `allowDisruption`, or take
    /// the wish back.
    DisruptionHeld,
    /// Something that the policy does once (`expireKeyAt`) is held, as it would do nothing. Do what the
    /// message says, or take the wish back.
    ActionHeld,
    /// The policy waits for somebody to approve its changes. Approve them as the message says, or take
    /// the wishes back.
    AwaitingApproval,
    /// The policy would change more devices within an hour than the tailnet allows. Correct its
    /// selector if it means too many; else approve the changes on the `TailscaleTailnet`, or raise its
    /// `maxChangedDevices`.
    LimitHeld,
    /// The change would make a policy let its device go: it asks for tags that the change takes away.
    /// Nothing is sent. Edit one of the two.
    SelectorFeedback,
    /// Devices that the policy has let go are being cleared, as `deletionPolicy: Clear` asks for. Wait,
    /// or do what the message says.
    Clearing,
    /// The policy is about more devices than its status can keep: 10,000 under `deletionPolicy: Clear`,
    /// for which nothing is sent then, and 5,000 whose keys are to be expired at one time. Narrow
    /// `deviceSelector`, or write `deletionPolicy: Retain`.
    TooManyDevices,
    /// No rule of the tailnet's `allowedPolicies` allows the policy, or what it asks of a device. Write
    /// the rule that the message names, or take the wish back.
    NotAllowed,
    /// The policy wishes to change a device that the tailnet's `protectedDevices` protects. Nothing is
    /// sent for that device. Leave it out of the policy.
    Protected,
    /// The policy, or its tailnet, is suspended: nothing is sent for it. Take `suspend` back to go on.
    Suspended,
    /// There is a difference, and the policy only observes. Write `enforcement: Enforce` to remove it.
    Observed,
    /// A device is let in only once everything else about it is as wished, and something of another
    /// policy is held, suspended or fails. Look at the other policies of the device.
    DependencyNotReady,
    /// Another policy wishes otherwise for the same field and ranks first. Edit one of the two.
    Conflicted,
    /// The spec cannot be read, or asks for what cannot be. Correct it as the message says.
    Invalid,

    /// The invite is out and its URL in the Secret; nobody has accepted it yet. Nothing to do.
    Invited,
    /// The invite is in the tailnet's list no more: it was withdrawn or has expired. Delete the
    /// `TailscaleDeviceInvite`, and create it again if the invite is still wanted.
    InviteGone,
    /// The invite is out, but its URL cannot be written to the Secret. The message says why.
    SecretNotWritten,

    /// There is no `TailscaleTailnet` of the name. Create it, or correct `tailnetRef`.
    TailnetNotFound,
    /// The tailnet's devices cannot be read at present. Its own status says why.
    TailnetUnavailable,
    /// The tailnet's devices can be read. Nothing to do.
    Connected,
    /// The Secret is missing or lacks a key, or the cluster gives the controller no token to prove
    /// itself with. Create the Secret in the controller's own namespace, or do what the message says.
    CredentialsMissing,
    /// The API does not know the credential (401). Put a valid one into the Secret.
    CredentialRejected,
    /// The credential may not do this (403). Give it the scope or role that the message names.
    Forbidden,
    /// The tailnet's plan does not include the feature. Change the plan, or take the wish back.
    PlanRefused,
    /// No answer from the API: name, network, TLS or time-out. It is tried again.
    ApiUnreachable,
    /// The API failed (5xx), or its answer cannot be read. It is tried again.
    ApiError,
    /// The API asks to slow down (429). It is tried again at the time that it named.
    RateLimited,

    /// The credential does not own a tag, or the policy file does not know it. Add it to `tagOwners`.
    TagsNotPermitted,
    /// Another device holds the IPv4 address. Choose another one, or free it.
    AddressInUse,
    /// The IPv4 addresses of devices would be swapped. Wish for a free one for one of the devices first.
    AddressSwap,
    /// The tailnet has the posture attribute as another type, or in another spelling of upper and lower
    /// case. Write it as the tailnet has it, or another key.
    AttributeConflict,
    /// Another device bears the name, or bore it a short while ago. Choose another one, or wait.
    NameTaken,
    /// The API refused the change for good (another 4xx). Correct it as the message says.
    Refused,
    /// Somebody else keeps changing the setting: three times within an hour. It is tried once an hour,
    /// until it has stayed for one. Find out who it is, or take the wish back.
    Contested,
    /// The API accepted the call, but the setting did not change. Look at the device in the admin
    /// console.
    NotEffective,
    /// The device's posture attributes have not been read yet, or cannot be. It is tried again.
    AttributesUnread,
    /// Some changes were made and others failed. The failures are tried again.
    PartiallyApplied,
}

impl Reason {
    /// The reason as it stands in a condition.
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
