//! Settings that a policy has released and that stay as they are, for people who read a plan.

use std::collections::BTreeSet;

use crate::model::{
    AttributeKey, Attributes, Device, ListSetting, ListValue, NodeId, PolicyField, Setting,
};
use crate::plan::{Field, FieldOwners, PolicyKey};

/// A setting of a device that a policy no longer declares, and that no other policy declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedSetting {
    /// The policy that declared it.
    pub policy: PolicyKey,
    /// The device.
    pub node: NodeId,
    /// Its display name.
    pub device: String,
    /// The setting.
    pub field: Field,
    /// Its value, if it was read.
    pub value: Option<String>,
}

/// What a policy has released on a device: fields of its spec, and with `postureAttributes` these keys.
pub(in crate::plan) fn released_settings(
    policy: &PolicyKey,
    fields: &BTreeSet<PolicyField>,
    keys: Option<&BTreeSet<AttributeKey>>,
    device: &Device,
    attributes: Option<&Attributes>,
    owners: &FieldOwners,
) -> Vec<ReleasedSetting> {
    let settings = Setting::ALL
        .into_iter()
        .filter(|setting| {
            fields.contains(&setting.field()) && !owners.settings.contains_key(setting)
        })
        .filter_map(|setting| {
            let value = setting.of(device)?;
            Some((Field::Setting(setting), Some(value.to_string())))
        });
    let lists = ListSetting::ALL
        .into_iter()
        .filter(|list| fields.contains(&list.field()))
        .filter_map(|list| {
            let stays = owners.unowned(list.of(device)?);
            let is_empty = stays == list.empty();
            (!is_empty).then(|| (Field::List(list), Some(stays.to_string())))
        });
    let keys = keys
        .filter(|_| fields.contains(&PolicyField::PostureAttributes))
        .into_iter()
        .flatten()
        .filter(|key| !owners.named.contains(*key))
        .filter_map(|key| {
            let value = match attributes {
                Some(known) => Some(known.get(key)?.value.to_string()),
                // Without a read the value is unknown, but the key is released.
                None => None,
            };
            Some((Field::Attribute(key.clone()), value))
        });
    let all = settings.chain(lists).chain(keys);
    let released = all.map(|(field, value)| ReleasedSetting {
        policy: policy.clone(),
        node: device.node_id.clone(),
        device: device.label().to_string(),
        field,
        value,
    });
    released.collect()
}

impl FieldOwners {
    /// Those of the observed entries of a list that no policy declares or removes.
    fn unowned(&self, observed: ListValue) -> ListValue {
        match observed {
            ListValue::Tags(tags) => ListValue::Tags(self.tags.unowned(&tags).into()),
            ListValue::EnabledRoutes(routes) => {
                ListValue::EnabledRoutes(self.enabled_routes.unowned(&routes))
            }
            ListValue::ExitNode(_) if self.exit_node.is_some() => ListSetting::ExitNode.empty(),
            exit_node @ ListValue::ExitNode(_) => exit_node,
        }
    }
}
