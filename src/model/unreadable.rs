use std::fmt;

/// A field of a device as the API reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceField {
    /// The older numeric id.
    Id,
    /// The MagicDNS name.
    Name,
    /// The hostname of the machine.
    Hostname,
    /// The login name of its user.
    User,
    /// Its tags.
    Tags,
    /// Its Tailscale addresses.
    Addresses,
    /// The operating system.
    Os,
    /// The version of its client.
    ClientVersion,
    /// Whether there is a newer client.
    UpdateAvailable,
    /// Whether it is ephemeral.
    IsEphemeral,
    /// When it joined.
    Created,
    /// Whether it is authorized.
    Authorized,
    /// Whether it is shared in.
    IsExternal,
    /// Whether it is connected.
    ConnectedToControl,
    /// Whether its key never expires.
    KeyExpiryDisabled,
    /// When its key expires.
    Expires,
    /// When it was last connected.
    LastSeen,
    /// The approved routes.
    EnabledRoutes,
    /// The advertised routes.
    AdvertisedRoutes,
    /// Why tailnet lock keeps it out.
    TailnetLockError,
    /// An attribute, in the answer of its own request.
    Attributes,
}

impl DeviceField {
    /// All fields.
    pub const ALL: [Self; 21] = [
        Self::Id,
        Self::Name,
        Self::Hostname,
        Self::User,
        Self::Tags,
        Self::Addresses,
        Self::Os,
        Self::ClientVersion,
        Self::UpdateAvailable,
        Self::IsEphemeral,
        Self::Created,
        Self::Authorized,
        Self::IsExternal,
        Self::ConnectedToControl,
        Self::KeyExpiryDisabled,
        Self::Expires,
        Self::LastSeen,
        Self::EnabledRoutes,
        Self::AdvertisedRoutes,
        Self::TailnetLockError,
        Self::Attributes,
    ];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Hostname => "hostname",
            Self::User => "user",
            Self::Tags => "tags",
            Self::Addresses => "addresses",
            Self::Os => "os",
            Self::ClientVersion => "clientVersion",
            Self::UpdateAvailable => "updateAvailable",
            Self::IsEphemeral => "isEphemeral",
            Self::Created => "created",
            Self::Authorized => "authorized",
            Self::IsExternal => "isExternal",
            Self::ConnectedToControl => "connectedToControl",
            Self::KeyExpiryDisabled => "keyExpiryDisabled",
            Self::Expires => "expires",
            Self::LastSeen => "lastSeen",
            Self::EnabledRoutes => "enabledRoutes",
            Self::AdvertisedRoutes => "advertisedRoutes",
            Self::TailnetLockError => "tailnetLockError",
            Self::Attributes => "attributes",
        }
    }
}

impl DeviceField {
    /// Its bit in [`UnreadableFields`].
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for DeviceField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields of a device that the API reports in a form that cannot be read. Each is unknown: what the
/// device has in its place decides nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnreadableFields {
    /// A bit for each field, as each device and each plan of a device has such a set.
    bits: u32,
}

impl UnreadableFields {
    /// Whether all fields could be read.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether a field could not be read.
    #[must_use]
    pub fn has(self, field: DeviceField) -> bool {
        self.bits & field.bit() != 0
    }

    fn iter(self) -> impl Iterator<Item = DeviceField> {
        DeviceField::ALL
            .into_iter()
            .filter(move |field| self.has(*field))
    }

    /// Adds a field.
    pub fn insert(&mut self, field: DeviceField) {
        self.bits |= field.bit();
    }

    /// Adds the fields of another set.
    pub fn extend(&mut self, other: Self) {
        self.bits |= other.bits;
    }

    /// The names of the fields.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(DeviceField::as_str).collect()
    }

    /// Those among these fields.
    #[must_use]
    pub fn among(self, fields: &[DeviceField]) -> Self {
        fields
            .iter()
            .copied()
            .filter(|field| self.has(*field))
            .collect()
    }
}

impl FromIterator<DeviceField> for UnreadableFields {
    fn from_iter<I: IntoIterator<Item = DeviceField>>(fields: I) -> Self {
        let bits = fields.into_iter().map(DeviceField::bit);
        Self {
            bits: bits.fold(0, |all, bit| all | bit),
        }
    }
}

/// `tags, user`
impl fmt::Display for UnreadableFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, field) in self.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{field}")?;
        }
        Ok(())
    }
}

/// A device that could not be read completely.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnreadableDevice {
    /// Its nodeId; if that cannot be read, its name or its place in the list.
    pub device: String,
    /// The unreadable fields.
    pub fields: Vec<&'static str>,
}

/// `n1CNTRL: tags, user`
impl fmt::Display for UnreadableDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.fields.join(", "))
    }
}

/// Devices that could not be read completely: some of them, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnreadableDevices {
    /// The first ones.
    pub first: Vec<UnreadableDevice>,
    /// The exact number.
    pub total: usize,
}

impl UnreadableDevices {
    /// How many are named.
    pub const NAMED: usize = 20;

    /// The devices that are not named.
    #[must_use]
    pub fn others(&self) -> usize {
        self.total - self.first.len()
    }

    /// Adds other devices.
    pub fn append(&mut self, others: &Self) {
        for device in &others.first {
            self.push(device.clone());
        }
        // `push` has counted those that are named.
        self.total += others.others();
    }

    /// Adds a device.
    pub fn push(&mut self, device: UnreadableDevice) {
        self.total += 1;
        // The others are only counted, so that a status keeps its bounds.
        if self.first.len() < Self::NAMED {
            self.first.push(device);
        }
    }
}

/// `n1CNTRL: tags; n2CNTRL: user, and 3 others`
impl fmt::Display for UnreadableDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.first.iter().map(ToString::to_string).collect();
        f.write_str(&named.join("; "))?;
        match self.others() {
            0 => Ok(()),
            1 => f.write_str(", and 1 other"),
            more => write!(f, ", and {more} others"),
        }
    }
}
