//! What the controller does about a difference.

/// What the controller does about a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It sends the change.
    #[default]
    Enforce,
    /// It sends the change once it has been approved. The policy keeps its precedence meanwhile.
    Approve,
    /// It sends nothing, and the policy keeps its precedence.
    Suspended(Suspender),
    /// It sends nothing, and the policy has no precedence.
    Observe,
}

/// Why a policy is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspender {
    /// By its own `suspend`.
    Policy,
    /// By the `suspend` of its tailnet, for all policies.
    Tailnet,
    /// Its spec is invalid. It keeps its precedence until it is corrected.
    Invalid,
    /// On one device: someone else has signed in on the device that the policy is bound to.
    Identity,
}
