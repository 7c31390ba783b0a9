use secrecy::SecretString;

/// The desired invite. An invite cannot be changed, so these fields alone tell whether an existing one is the
/// desired one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredInvite {
    /// The address to which Tailscale sends it; `None`: it is not sent.
    pub email: Option<String>,
    /// Whether it can be accepted more than once.
    pub multi_use: bool,
    /// Whether the person who accepts it may use the device as an exit node.
    pub allow_exit_node: bool,
}

/// An invite as the API reports it.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// The fields that it was created with.
    pub made_as: DesiredInvite,
    /// Whether it has been accepted.
    pub accepted: bool,
    /// The login of the person who accepted it, if the API reports it.
    pub accepted_by: Option<String>,
    /// Anyone who has it can accept the invite.
    pub url: SecretString,
}

impl DesiredInvite {
    /// Whether an invite is the desired one. Case does not count in addresses: no two mailboxes differ only in it.
    #[must_use]
    pub fn is_met_by(&self, invite: &Invite) -> bool {
        let folded = |desired: &Self| desired.email.as_ref().map(|email| email.to_lowercase());
        let made_as = &invite.made_as;
        self.multi_use == made_as.multi_use
            && self.allow_exit_node == made_as.allow_exit_node
            && folded(self) == folded(made_as)
    }
}
