//! Deliberate faults of the engine, one at a time, for a test that its tests would find them
//! (`tests/histories/mutants.rs`).
//!
//! Outside of tests no fault exists: `mutant!(Name)` is `false` there.

#[cfg(not(test))]
macro_rules! mutant {
    ($fault:ident) => {
        false
    };
}

#[cfg(test)]
macro_rules! mutant {
    ($fault:ident) => {
        $crate::tailnet::mutants::is_on($crate::tailnet::mutants::Mutant::$fault)
    };
}

pub(super) use mutant;

/// A deliberate fault.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// What has not been read counts as empty.
    UnknownIsEmpty,
    /// A lost answer counts as a failure: the request is repeated without a read.
    LostAnswerIsFailure,
    /// A request does not wait until the record that it needs is stored.
    RequestBeforeRecord,
    /// An accepted write does not change the snapshot.
    SnapshotIsNotUpdated,
    /// A used approval does not change the hash of the next plan.
    ApprovalWorksTwice,
    /// A process that does not lead writes.
    LeadershipIsNotChecked,
    /// A list ends the backoffs of its devices.
    ListEndsBackoffs,
    /// A write that waited is sent whatever has happened meanwhile.
    ReasonsAreNotCheckedAgain,
    /// Records of an earlier term count in the next one.
    RecordsOutliveTheirTerm,
    /// A policy that owns a key on one device owns it on all its devices.
    KeysAreOwnedByPolicy,
    /// A device that one list lacks is gone.
    OneListProvesAbsence,
    /// A device is changed without a reservation.
    NothingIsReserved,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches a fault on, for the engines of this thread, or all off.
#[cfg(test)]
pub fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether this fault is switched on.
#[cfg(test)]
pub fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}
