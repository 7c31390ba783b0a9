//! Whether two plans of a device desire the same.

use super::{FieldOwners, PolicyKey};
use crate::{model::ListSetting, plan::Field};

impl FieldOwners {
    /// The fields as they are resolved for a policy: an observing or denied one counts alone.
    fn of_policy(&self, policy: &PolicyKey) -> Option<&Self> {
        let alone = self.observed.get(policy);
        let alone = alone.or_else(|| self.protected.get(policy));
        alone.or_else(|| self.includes(policy).then_some(self))
    }

    /// Whether this policy was compared with the device.
    #[must_use]
    pub fn knows(&self, policy: &PolicyKey) -> bool {
        self.of_policy(policy).is_some()
    }

    /// Whether the field has the same desired state as in an earlier plan, from the view of this policy.
    #[must_use]
    pub fn desires_same_as(&self, before: &Self, policy: &PolicyKey, field: &Field) -> bool {
        let (Some(now), Some(before)) = (self.of_policy(policy), before.of_policy(policy)) else {
            return false;
        };
        match field {
            Field::Setting(setting) => {
                let desired = |it: &Self| it.settings.get(setting).map(|it| it.desired.clone());
                desired(now) == desired(before)
            }
            Field::List(ListSetting::Tags) => now.tags == before.tags,
            Field::List(ListSetting::EnabledRoutes) => now.enabled_routes == before.enabled_routes,
            Field::List(ListSetting::ExitNode) => {
                let desired = |it: &Self| it.exit_node.as_ref().map(|it| it.desired.clone());
                desired(now) == desired(before)
            }
            Field::Attribute(key) => {
                let desired = |it: &Self| it.attributes.get(key).map(|it| it.desired.clone());
                // An attribute that nobody declares is deleted by those who own all of them.
                let prunes = |it: &Self| !it.exact_attribute_owners.is_empty();
                desired(now) == desired(before) && prunes(now) == prunes(before)
            }
            Field::ExpireKeyAt | Field::DeleteInactive => true,
        }
    }
}
