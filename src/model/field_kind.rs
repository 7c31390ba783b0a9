use super::{ListSetting, PolicyField, Setting};

/// What a field of a spec declares: a row of one of the two tables of settings, or something of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A setting that is one value.
    Setting(Setting),
    /// A setting that is entries of a list.
    List(ListSetting),
    /// The posture attributes.
    PostureAttributes,
    /// A one-shot action.
    ExpireKeyAt,
    /// A one-shot action.
    DeleteInactive,
}

impl PolicyField {
    /// What it declares.
    #[must_use]
    pub fn kind(self) -> FieldKind {
        let setting = Setting::ALL.into_iter().find(|it| it.field() == self);
        let list = ListSetting::ALL.into_iter().find(|it| it.field() == self);
        match (setting, list, self) {
            (Some(setting), ..) => FieldKind::Setting(setting),
            (_, Some(list), _) => FieldKind::List(list),
            (.., Self::ExpireKeyAt) => FieldKind::ExpireKeyAt,
            (.., Self::DeleteInactive) => FieldKind::DeleteInactive,
            // The only field that is left: the test below counts them.
            _ => FieldKind::PostureAttributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_field_that_declares_a_setting_has_its_setting() {
        let kinds = PolicyField::ALL.map(PolicyField::kind).into_iter();
        let declared: BTreeSet<Setting> = kinds
            .filter_map(|kind| match kind {
                FieldKind::Setting(setting) => Some(setting),
                _ => None,
            })
            .collect();
        assert_eq!(declared, Setting::ALL.into());
        for setting in Setting::ALL {
            assert_eq!(setting.field().kind(), FieldKind::Setting(setting));
        }
        for list in ListSetting::ALL {
            assert_eq!(list.field().kind(), FieldKind::List(list));
        }
        let lists = PolicyField::ALL.map(PolicyField::kind).into_iter();
        let lists = lists.filter(|kind| matches!(kind, FieldKind::List(_)));
        assert_eq!(lists.count(), ListSetting::ALL.len());
        let fields = PolicyField::ALL.into_iter();
        let attributes = fields.filter(|it| it.kind() == FieldKind::PostureAttributes);
        let attributes: Vec<PolicyField> = attributes.collect();
        assert_eq!(attributes, [PolicyField::PostureAttributes]);
    }
}
