use secrecy::SecretString;

/// What an invite is asked to be. An invite cannot be changed, so this alone tells whether one that
/// is there is one that is wished for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredInvite {
    /// To whom Tailscale sends it; `None`: to nobody.
    pub email: Option<String>,
    /// Whether it can be accepted more than once.
    pub multi_use: bool,
    /// Whether who accepts may use the device as an exit node.
    pub allow_exit_node: bool,
}

/// An invite as the API reports it.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// What it was made as.
    pub made_as: DesiredInvite,
    /// Whether somebody has accepted it.
    pub accepted: bool,
    /// The login of who accepted it, where the API says so.
    pub accepted_by: Option<String>,
    /// Whoever has it can accept the invite.
    pub url: SecretString,
}

impl DesiredInvite {
    /// Whether an invite is as wished. Addresses differ in case alone if at all: nobody keeps two
    /// such mailboxes apart.
    #[must_use]
    pub fn is_met_by(&self, invite: &Invite) -> bool {
        let folded = |desired: &Self| desired.email.as_ref().map(|email| email.to_lowercase());
        let made_as = &invite.made_as;
        self.multi_use == made_as.multi_use
            && self.allow_exit_node == made_as.allow_exit_node
            && folded(self) == folded(made_as)
    }
}
