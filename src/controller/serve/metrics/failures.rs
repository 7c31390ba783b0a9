//! Why a status was not written, and why a webhook was refused: each a label of a metric.

/// Why a status was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::controller) enum StatusFailure {
    /// The object has changed since it was read.
    Conflict,
    NotFound,
    Forbidden,
    Timeout,
    /// Another answer, or none.
    Failed,
}

impl StatusFailure {
    pub const ALL: [Self; 5] = [
        Self::Conflict,
        Self::NotFound,
        Self::Forbidden,
        Self::Timeout,
        Self::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::NotFound => "NotFound",
            Self::Forbidden => "Forbidden",
            Self::Timeout => "Timeout",
            Self::Failed => "Failed",
        }
    }
}

/// Why a webhook was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::controller) enum Rejection {
    UnknownTailnet,
    Unsigned,
    Forged,
    Old,
    Early,
    Body,
}

impl Rejection {
    pub const ALL: [Self; 6] = [
        Self::UnknownTailnet,
        Self::Unsigned,
        Self::Forged,
        Self::Old,
        Self::Early,
        Self::Body,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTailnet => "UnknownTailnet",
            Self::Unsigned => "Unsigned",
            Self::Forged => "Forged",
            Self::Old => "Old",
            Self::Early => "Early",
            Self::Body => "Body",
        }
    }
}
