//! Approvals: what is held until somebody agrees to it, under which hash, and what was agreed to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fmt::Write as _,
    str::FromStr,
};

use ring::digest::{SHA256, digest};

use jiff::SignedDuration;

use super::{Change, Difference, Field, Hold, Policy, PolicyKey};
use crate::model::{NodeId, Refused};

/// Entries of one annotation that are read. People write one or two.
const MAX_ENTRIES: usize = 100;
/// Characters of a faulty entry that are repeated.
const SHOWN: usize = 80;

/// What tells one frozen plan from any other: the first 16 hex digits of the SHA-256 of its text.
/// Enough to tell apart what waits at one time; it is no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanHash(String);

impl PlanHash {
    const BYTES: usize = 8;

    fn of(text: &str) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        let bytes = digest.as_ref().iter().take(Self::BYTES);
        Self(bytes.fold(String::new(), |mut hash, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02x}");
            hash
        }))
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PlanHash {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 2 * Self::BYTES && text.bytes().all(is_digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused(format!(
            "'{}' is no hash of a plan: write the 16 digits of status.heldPlan.hash",
            shortened(text)
        )))
    }
}

/// What the annotation [`crate::api::APPROVE`] of an object approves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    /// Held plans.
    pub plans: BTreeSet<PlanHash>,
    /// Devices that a policy may be bound to.
    pub nodes: BTreeSet<NodeId>,
    /// Entries that cannot be read, each with what to write. The others count all the same.
    pub errors: Vec<String>,
}

impl Approvals {
    /// Reads the annotation.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        let mut approvals = Self::default();
        let entries = annotation.unwrap_or_default().split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()).take(MAX_ENTRIES) {
            let taken = match entry.split_once(':') {
                Some(("plan", hash)) => hash.parse().map(|hash| {
                    approvals.plans.insert(hash);
                }),
                Some(("node", id)) => id.parse().map(|id| {
                    approvals.nodes.insert(id);
                }),
                _ => Err(Refused(format!(
                    "'{}' approves nothing: write plan:HASH or node:ID, with commas between several",
                    shortened(entry)
                ))),
            };
            approvals
                .errors
                .extend(taken.err().map(|refused| refused.0));
        }
        approvals
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// On which object an approval is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApprovedOn {
    /// The policy: it waits for approvals by its own mode.
    Policy,
    /// The tailnet: it is its limit that holds the policy.
    Tailnet,
}

impl ApprovedOn {
    /// Where what is held like this is approved; `None` where no approval helps.
    #[must_use]
    pub fn releases(hold: &Hold) -> Option<Self> {
        match hold {
            Hold::Approval(_) => Some(Self::Policy),
            Hold::Limit(_) => Some(Self::Tailnet),
            _ => None,
        }
    }
}

/// Changes of several devices, by their fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<NodeId, BTreeMap<Field, Change>>);

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many devices they change.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.0.len()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The devices.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// Those of one device.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<&BTreeMap<Field, Change>> {
        self.0.get(node)
    }

    /// Whether just this change is among them: the same before and the same after.
    #[must_use]
    pub fn contains(&self, node: &NodeId, change: &Change) -> bool {
        let of_node = self.0.get(node);
        of_node.is_some_and(|changes| changes.get(&change.field()) == Some(change))
    }

    /// Adds one.
    pub fn insert(&mut self, node: NodeId, change: Change) {
        let of_node = self.0.entry(node).or_default();
        of_node.insert(change.field(), change);
    }

    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        for (node, changes) in others.0 {
            self.0.entry(node).or_default().extend(changes);
        }
    }

    /// Takes out those of one device that are not to be kept.
    pub fn retain(&mut self, node: &NodeId, keep: impl Fn(&Change) -> bool) {
        if let Some(changes) = self.0.get_mut(node) {
            changes.retain(|_, change| keep(change));
            if changes.is_empty() {
                self.0.remove(node);
            }
        }
    }
}

/// What is held of one policy until somebody approves it. It is frozen: its hash names just these
/// changes, for good. What differs later is no part of it, and of what it has only those changes are
/// sent that are still open when it is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenPlan {
    /// What an approval names.
    pub hash: PlanHash,
    /// Where the approval is written.
    pub on: ApprovedOn,
    /// What the hash was made of.
    changes: Changes,
    /// Those of them that still differ just so.
    open: Changes,
}

impl FrozenPlan {
    /// Freezes what is held. The hash tells it from what was held for another generation of the
    /// policy, and from all that was held before an approval was used.
    #[must_use]
    pub fn freeze(
        policy: &Policy,
        approvals_used: u32,
        on: ApprovedOn,
        changes: Changes,
    ) -> Option<Self> {
        if changes.is_empty() {
            return None;
        }
        let mut text = format!(
            "{}\n{}\n{approvals_used}\n{on:?}\n",
            policy.uid, policy.generation
        );
        for (node, changes) in &changes.0 {
            for change in changes.values() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{node} {change}");
            }
        }
        let hash = PlanHash::of(&text);
        Some(Self {
            hash,
            on,
            open: changes.clone(),
            changes,
        })
    }

    /// What the hash was made of.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Those of its changes that are sent once it is approved.
    #[must_use]
    pub fn open(&self) -> &Changes {
        &self.open
    }

    /// Takes a new comparison of a device: what differs just as it did is open, and what does so no
    /// longer is not. What has not been read stays as it is.
    pub fn compare(
        &mut self,
        node: &NodeId,
        differs: impl Fn(&Change) -> bool,
        unread: impl Fn(&Change) -> bool,
    ) {
        self.open
            .retain(node, |change| differs(change) || unread(change));
        let of_node = self.changes.of(node).into_iter();
        for change in of_node.flat_map(BTreeMap::values) {
            if differs(change) {
                self.open.insert(node.clone(), change.clone());
            }
        }
    }

    /// Whether this difference is part of it.
    #[must_use]
    pub fn holds(&self, difference: &Difference) -> bool {
        let hold = difference.hold.as_ref();
        hold.and_then(ApprovedOn::releases) == Some(self.on)
            && self.changes.contains(&difference.node, &difference.change)
    }
}

/// What stands in the way of one policy's changes on one device, and what was approved all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApprovalState<'a> {
    /// The limit of changed devices holds the policy here.
    pub limited: bool,
    /// What was approved on the policy.
    pub approved: Option<&'a BTreeMap<Field, Change>>,
    /// What was approved on the tailnet.
    pub exempt_from_limit: Option<&'a BTreeMap<Field, Change>>,
}

/// The permits of one device's policies. A policy that has none is not limited, and nothing is
/// approved of it.
#[derive(Debug, Clone, Default)]
pub struct ApprovalStates<'a> {
    of: BTreeMap<&'a PolicyKey, ApprovalState<'a>>,
    approved_plan: Option<&'a Changes>,
    clock_skew: Option<SignedDuration>,
}

impl<'a> FromIterator<(&'a PolicyKey, ApprovalState<'a>)> for ApprovalStates<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a PolicyKey, ApprovalState<'a>)>>(permits: I) -> Self {
        Self {
            of: permits.into_iter().collect(),
            approved_plan: None,
            clock_skew: None,
        }
    }
}

impl<'a> ApprovalStates<'a> {
    /// Where somebody has agreed to these changes and to no others, none but them is made.
    #[must_use]
    pub fn only(self, approved: Option<&'a Changes>) -> Self {
        Self {
            approved_plan: approved,
            ..self
        }
    }

    /// Where the local clock is so far ahead of the API's (or behind it), no one-shot action begins.
    #[must_use]
    pub fn with_clock_skew(self, clock_skew: Option<SignedDuration>) -> Self {
        Self { clock_skew, ..self }
    }
}

impl ApprovalStates<'_> {
    fn has(changes: Option<&BTreeMap<Field, Change>>, change: &Change) -> bool {
        changes.is_some_and(|changes| changes.get(&change.field()) == Some(change))
    }

    /// How far the local clock is ahead of the API's, where that is too far.
    pub(super) fn clock_skew(&self) -> Option<SignedDuration> {
        self.clock_skew
    }

    /// Whether a change is none of those that somebody has agreed to.
    pub(super) fn exclude(&self, node: &NodeId, change: &Change) -> bool {
        self.approved_plan
            .is_some_and(|approved| !approved.contains(node, change))
    }

    pub(super) fn limits(&self, policy: &PolicyKey) -> bool {
        self.of.get(policy).is_some_and(|permit| permit.limited)
    }

    /// Whether anything was approved of a policy here.
    pub(super) fn has_approved(&self, policy: &PolicyKey) -> bool {
        let permit = self.of.get(policy);
        permit.is_some_and(|permit| permit.approved.is_some() || permit.exempt_from_limit.is_some())
    }

    pub(super) fn approves(&self, policy: &PolicyKey, change: &Change) -> bool {
        let permit = self.of.get(policy);
        permit.is_some_and(|permit| Self::has(permit.approved, change))
    }

    pub(super) fn is_exempt_from_limit(&self, policy: &PolicyKey, change: &Change) -> bool {
        let permit = self.of.get(policy);
        permit.is_some_and(|permit| Self::has(permit.exempt_from_limit, change))
    }
}
