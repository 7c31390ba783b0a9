use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Clashes, Fleet, Guardrails, LetGo, Permits, PolicyKey};

/// What decides about a device besides itself and its policies.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// All devices: who has an address or a name that is wished for.
    pub fleet: &'a Fleet,
    /// What was approved, and what the limit of changed devices holds.
    pub permits: &'a Permits<'a>,
    /// What policies of other devices claim, and what other devices have, of what a tailnet has once.
    pub clashes: &'a Clashes,
    /// The time, for expiries.
    pub now: Timestamp,
    /// What policies take from it that have let it go.
    pub let_go: &'a [LetGo],
    /// The policies whose turn it is to delete it, should it have been away for long enough: how
    /// many a policy deletes in a day is decided among all of its devices.
    pub turns: &'a BTreeSet<PolicyKey>,
    /// What the tailnet permits.
    pub guardrails: &'a Guardrails,
}
