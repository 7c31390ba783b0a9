use std::{
    collections::{BTreeSet, btree_set},
    ops::{Deref, DerefMut},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use super::Tag;

/// Tags compare as a set; the API sorts them.
///
/// Shared until it is changed: thousands of devices and policies have one of a few sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagSet(Arc<BTreeSet<Tag>>);

impl TagSet {
    /// Without tags.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Deref for TagSet {
    type Target = BTreeSet<Tag>;

    fn deref(&self) -> &BTreeSet<Tag> {
        &self.0
    }
}

impl DerefMut for TagSet {
    fn deref_mut(&mut self) -> &mut BTreeSet<Tag> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<BTreeSet<Tag>> for TagSet {
    fn from(tags: BTreeSet<Tag>) -> Self {
        Self(Arc::new(tags))
    }
}

impl<const N: usize> From<[Tag; N]> for TagSet {
    fn from(tags: [Tag; N]) -> Self {
        BTreeSet::from(tags).into()
    }
}

impl FromIterator<Tag> for TagSet {
    fn from_iter<I: IntoIterator<Item = Tag>>(tags: I) -> Self {
        tags.into_iter().collect::<BTreeSet<Tag>>().into()
    }
}

impl IntoIterator for TagSet {
    type Item = Tag;
    type IntoIter = btree_set::IntoIter<Tag>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a TagSet {
    type Item = &'a Tag;
    type IntoIter = btree_set::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for TagSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
