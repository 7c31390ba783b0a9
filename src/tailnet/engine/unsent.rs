//! Why a change that nothing holds is not sent: every declared value that does not hold is reported with its cause.

use std::collections::BTreeMap;

use super::policy_report::Reports;
use crate::{
    model::NodeId,
    plan::{Field, PolicyKey},
    tailnet::Failure,
};

const MISSING: &str = "the last list of devices lacks the device: nothing is sent to it before a list has it \
                       again";
const IN_DOUBT: &str = "it waits for a list that has about as many devices as the one before";

impl Reports<'_> {
    /// Why differences of a policy on a device are not sent that nothing holds. A difference without an entry is
    /// under way.
    pub(super) fn unsent(&self, key: &PolicyKey, id: &NodeId) -> Vec<(Field, String)> {
        let Some(node) = self.devices.get(id) else {
            return Vec::new();
        };
        let failures: BTreeMap<Option<Field>, Failure> = node.failures(key).collect();
        let is_missing = self.observed.absence().is_missing(id);
        let open = node.plan().of(key).filter(|it| it.hold.is_none());
        let waits = open.filter_map(|difference| {
            let field = difference.change.field();
            let failure = |of: Option<&Field>| Some(failures.get(&of.cloned())?.message.clone());
            // The first one that must end before any of the others matters.
            let why = is_missing
                .then(|| MISSING.to_owned())
                .or_else(|| failure(Some(&field)))
                .or_else(|| node.plan().waits_for(difference, key))
                .or_else(|| failure(None))
                .or_else(|| (field == Field::DeleteInactive).then(|| IN_DOUBT.to_owned()))?;
            Some((field, why))
        });
        waits.collect()
    }
}
