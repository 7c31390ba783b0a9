/// The requests of one device, in the order in which they are sent. Changes with the same step share a request.
///
/// No device is authorized before its restrictions are in place, and tags change before the settings that depend
/// on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A device that is deleted gets no other request.
    Delete,
    /// Takes it out of the tailnet.
    Deauthorize,
    /// Its tags.
    Tags,
    /// Whether its key expires.
    // The API may disable key expiry when it tags a device, so tags go first.
    KeyExpiry,
    /// Its posture attributes.
    Attributes,
    /// Its routes, of both kinds.
    Routes,
    /// Its name.
    Name,
    /// Its address.
    Ipv4,
    /// Expires its key.
    ExpireKey,
    /// Lets it into the tailnet.
    Authorize,
    /// It is never sent.
    Never,
}
