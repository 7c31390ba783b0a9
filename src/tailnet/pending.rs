//! How many changes of a policy are pending, and for which reason.

use std::collections::BTreeMap;

use crate::{
    model::Reason,
    plan::{Difference, Field, Hold},
};

/// The declared values that do not hold now, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PendingChanges(BTreeMap<(Reason, bool), (usize, usize)>);

/// The pending changes of one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingOf {
    /// Why they are not made yet.
    pub reason: Reason,
    /// Whether the controller holds them: an approval, an edit or the limit must release them.
    pub held: bool,
    /// How many.
    pub changes: usize,
    /// How many devices they are of.
    pub devices: usize,
}

impl PendingChanges {
    /// Adds what is pending on one device: the differences, the number of fields that another policy overrides, and
    /// why the change of a field has failed.
    pub fn add_device<'a>(
        &mut self,
        differences: impl Iterator<Item = &'a Difference>,
        overridden: usize,
        failure: impl Fn(&Field) -> Option<Reason>,
    ) {
        let mut device: BTreeMap<(Reason, bool), usize> = BTreeMap::new();
        for difference in differences {
            let hold = difference.hold.as_ref();
            let reason = hold
                .map(Hold::reason)
                .or_else(|| failure(&difference.change.field()))
                .unwrap_or(Reason::Progressing);
            *device.entry((reason, difference.is_held())).or_default() += 1;
        }
        if overridden > 0 {
            device.insert((Reason::Conflicted, false), overridden);
        }
        for (key, changes) in device {
            let (all, devices) = self.0.entry(key).or_default();
            *all += changes;
            *devices += 1;
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = PendingOf> {
        self.0
            .iter()
            .map(|(&(reason, held), &(changes, devices))| PendingOf {
                reason,
                held,
                changes,
                devices,
            })
    }
}
