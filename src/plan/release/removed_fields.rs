//! What happens to fields that a spec no longer declares.
//!
//! | field removed from the spec   | `Retain` | `Clear`                                                      |
//! |-------------------------------|----------|--------------------------------------------------------------|
//! | `postureAttributes`           | stays    | the keys that the policy owns are deleted                    |
//! | `enabledRoutes`               | stays    | the routes that it declared and manages are withdrawn        |
//! | `exitNode`                    | stays    | after `true`, both routes of an exit node are withdrawn      |
//! | all others                    | stays    | stays                                                        |

use std::{collections::BTreeSet, sync::Arc};

use super::{Edit, ManagedSettings};
use crate::{
    model::{ListSetting, NodeId, PolicyField, Setting},
    plan::{Deletion, Field, Policy, PolicyRecord},
};

impl PolicyField {
    /// The settings of the field, if it declares a state and not attributes.
    pub(in crate::plan) fn state(self) -> Option<Field> {
        let mut settings = Setting::ALL
            .into_iter()
            .filter(|setting| setting.field() == self);
        let mut lists = ListSetting::ALL
            .into_iter()
            .filter(|list| list.field() == self);
        let setting = settings.next().map(Field::Setting);
        setting.or_else(|| lists.next().map(Field::List))
    }
}

impl Policy {
    /// The declared fields that may join the managed ones, as a difference names them.
    pub fn unmanaged_fields<'a>(
        &'a self,
        record: &'a PolicyRecord,
    ) -> impl Iterator<Item = (PolicyField, Field)> + 'a {
        let declared = self.desired.fields().into_iter();
        let new = declared.filter(|field| !record.fields.fields.contains(field));
        new.filter_map(|field| Some((field, field.state()?)))
    }

    /// The fields that the record has as managed and the spec no longer declares.
    fn removed_fields(&self, record: &PolicyRecord) -> BTreeSet<PolicyField> {
        let declared = self.desired.fields();
        let mut managed = record.fields.fields.clone();
        // The record of owned keys tells of attributes more exactly than that of the fields.
        if !record.owned.is_empty() {
            managed.insert(PolicyField::PostureAttributes);
        }
        managed.retain(|field| !declared.contains(field));
        managed
    }
}

impl PolicyRecord {
    /// Releases the fields that a valid spec no longer declares. Under `Clear`, their settings become due on the
    /// devices. A policy that sends nothing now keeps them in its record until it sends something. Returns
    /// whether anything has changed.
    pub fn release_fields(&mut self, policy: &Policy, edit: Edit) -> bool {
        let removed = policy.removed_fields(self);
        let released = self.fields.released.as_ref();
        // Also without a removed field, another generation ends the report of the last one.
        if removed.is_empty() && released.is_none_or(|it| it.generation == edit.generation) {
            return false;
        }
        let cleared = match policy.deletion {
            Deletion::Clear => self.clearable(&removed),
            Deletion::Retain => BTreeSet::new(),
        };
        let stays: BTreeSet<PolicyField> = removed.difference(&cleared).copied().collect();
        let is_due = policy.clears() && edit.is_certain && !cleared.is_empty();
        if is_due {
            self.clear_fields(policy);
        }
        // What stays is no longer the policy's: later nothing may delete it.
        if stays.contains(&PolicyField::PostureAttributes) {
            self.owned = Arc::default();
        }
        let before = self.fields.clone();
        // A field that cannot be cleared yet stays managed, or nothing would clear it later.
        let fields = &mut self.fields.fields;
        fields.retain(|field| !removed.contains(field) || (cleared.contains(field) && !is_due));
        self.fields.note_edit(policy, edit, stays);
        is_due || self.fields != before
    }

    /// Those of the removed fields of which `Clear` leaves nothing.
    fn clearable(&self, removed: &BTreeSet<PolicyField>) -> BTreeSet<PolicyField> {
        let lists = self.managed.routes.iter().map(ListSetting::of_route);
        let mut cleared: BTreeSet<PolicyField> = lists.map(ListSetting::field).collect();
        cleared.insert(PolicyField::PostureAttributes);
        removed.intersection(&cleared).copied().collect()
    }

    /// Makes the settings of undeclared fields due on all devices.
    fn clear_fields(&mut self, policy: &Policy) {
        let declared = policy.desired.fields();
        Arc::make_mut(&mut self.managed).release_lists(|list| declared.contains(&list.field()));
        if policy.desired.attributes.is_none() {
            let nodes: Vec<NodeId> = self.owned.nodes().cloned().collect();
            for id in nodes {
                self.clear_keys(&id);
            }
        }
    }

    /// Makes the keys that the policy owns on a device due there.
    pub fn clear_keys(&mut self, id: &NodeId) {
        let keys = self.owned.known_at(id).cloned().unwrap_or_default();
        if keys.is_empty() {
            return;
        }
        let settings = ManagedSettings {
            keys,
            ..ManagedSettings::default()
        };
        Arc::make_mut(&mut self.managed).add_due(id, settings);
        Arc::make_mut(&mut self.owned).release(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::AttributeKey,
        plan::{
            AllowedRules, DesiredSettings, Mode, Ownership, PolicyKey, Selector, Suspender, Target,
        },
    };

    /// It declares nothing.
    fn policy(deletion: Deletion) -> Policy {
        Policy {
            key: PolicyKey::new("network", "fleet"),
            uid: String::new(),
            generation: 1,
            priority: 0,
            created: jiff::Timestamp::UNIX_EPOCH,
            target: Target::Selector(Selector::default()),
            desired: DesiredSettings::default(),
            ownership: Ownership::default(),
            mode: Mode::default(),
            allowed: BTreeSet::new(),
            deletion,
            allowance: AllowedRules::default(),
        }
    }

    fn edit(generation: i64, is_reported: bool) -> Edit {
        Edit {
            generation,
            devices: 1,
            is_certain: true,
            is_reported,
        }
    }

    /// What is released is reported until the next edit, and not lost before a status has had it.
    #[test]
    fn an_edit_adds_to_what_an_unreported_one_released() {
        let policy = policy(Deletion::Retain);
        for is_reported in [false, true] {
            let mut record = PolicyRecord::default();
            let released = |record: &PolicyRecord| -> Vec<PolicyField> {
                let released = record.fields.released.iter();
                released.flat_map(|it| it.fields.iter().copied()).collect()
            };
            record.fields.fields = [PolicyField::Name].into();
            assert!(record.release_fields(&policy, edit(2, true)));
            assert_eq!(released(&record), [PolicyField::Name]);
            // The same edit again changes nothing.
            assert!(!record.release_fields(&policy, edit(2, true)));
            record.fields.fields = [PolicyField::Ipv4].into();
            assert!(record.release_fields(&policy, edit(3, is_reported)));
            let expected = if is_reported {
                vec![PolicyField::Ipv4]
            } else {
                vec![PolicyField::Name, PolicyField::Ipv4]
            };
            assert_eq!(released(&record), expected, "{is_reported}");
        }
    }

    /// Of a policy that set a key.
    fn record() -> PolicyRecord {
        let mut record = PolicyRecord::default();
        record.fields.fields = [PolicyField::PostureAttributes].into();
        Arc::make_mut(&mut record.owned).add(&node(), [key()]);
        record
    }

    fn node() -> NodeId {
        "n1CNTRL".parse().unwrap()
    }

    fn key() -> AttributeKey {
        "custom:tier".parse().unwrap()
    }

    /// What was the policy's once must never be deleted for it later.
    #[test]
    fn retain_gives_up_the_keys_of_removed_attributes() {
        let mut record = record();
        assert!(record.release_fields(&policy(Deletion::Retain), edit(2, true)));
        assert!(record.owned.is_empty());
        assert!(record.managed.due(&node()).keys.is_empty());
        assert!(record.fields.fields.is_empty());
    }

    #[test]
    fn clear_makes_the_keys_of_removed_attributes_due() {
        let mut record = record();
        assert!(record.release_fields(&policy(Deletion::Clear), edit(2, true)));
        assert_eq!(record.managed.due(&node()).keys, [key()].into());
        assert!(record.owned.is_empty());
        assert!(record.fields.fields.is_empty());
        assert_eq!(record.fields.released, None);
    }

    /// Until the policy acts again, and it is certain on which devices.
    #[test]
    fn clear_keeps_what_it_cannot_delete_yet() {
        let acts = policy(Deletion::Clear);
        let waiting = [Mode::Observe, Mode::Suspended(Suspender::Policy)].map(|mode| Policy {
            mode,
            ..acts.clone()
        });
        let uncertain = Edit {
            is_certain: false,
            ..edit(2, true)
        };
        let [observes, suspended] = waiting;
        for (policy, edit) in [
            (&observes, edit(2, true)),
            (&suspended, edit(2, true)),
            (&acts, uncertain),
        ] {
            let mut record = record();
            record.release_fields(policy, edit);
            assert_eq!(*record.owned, *self::record().owned, "{:?}", policy.mode);
            assert_eq!(record.fields, self::record().fields, "{:?}", policy.mode);
            assert!(record.managed.due(&node()).keys.is_empty());
            record.release_fields(&acts, self::edit(3, true));
            assert_eq!(record.managed.due(&node()).keys, [key()].into());
        }
    }

    /// A route that the policy does not manage on a device stays there.
    #[test]
    fn only_managed_routes_become_due() {
        let node = |id: &str| -> NodeId { id.parse().unwrap() };
        let routes: crate::model::RouteSet = ["10.0.0.0/16".parse().unwrap()].into();
        let policy = policy(Deletion::Clear);
        let mut record = PolicyRecord::default();
        record.fields.fields = [PolicyField::EnabledRoutes].into();
        let managed = Arc::make_mut(&mut record.managed);
        managed.name_routes(routes.clone());
        managed.hold(vec![node("n1CNTRL"), node("n2CNTRL")]);
        managed.manage_routes(&node("n1CNTRL"), &routes);
        assert!(record.release_fields(&policy, edit(2, true)));
        assert_eq!(record.managed.due(&node("n1CNTRL")).routes, routes);
        assert!(record.managed.due(&node("n2CNTRL")).routes.is_empty());
        // Declared again before they are cleared: it manages them as before.
        Arc::make_mut(&mut record.managed).name_routes(routes.clone());
        assert_eq!(*record.managed.managed_routes(&node("n1CNTRL")), routes);
        assert!(record.managed.is_partly_managed(&node("n2CNTRL")));
    }
}
