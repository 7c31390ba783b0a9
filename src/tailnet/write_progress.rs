//! What has become of the changes of a device: written, verified, refused, of unknown outcome, or changed back
//! by someone else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use litemap::LiteMap;

use super::{contest::Contest, failure::Backoff};
use crate::plan::{Change, ChangeCause, Difference, Field, PolicyKey};

/// The progress of the changes of one device. There is one for each device, and its maps have at most a few
/// entries: a sorted list takes a fraction of a tree's memory.
#[derive(Debug, Default)]
pub(super) struct WriteProgress {
    /// Written changes that no read has verified yet.
    unverified: LiteMap<Field, Box<Written>>,
    /// Written changes that have been read since. The next plan tells whether they still differ.
    verified: LiteMap<Field, Box<Written>>,
    /// Changes that may have taken effect: the answer was lost.
    outcome_unknown: Vec<Difference>,
    backoffs: LiteMap<Field, Box<Backoff>>,
    /// The fields that were written within the last hour or so, and whether another writer reverses them.
    contests: LiteMap<Field, Box<Contest>>,
}

/// A change that the API has accepted.
#[derive(Debug)]
struct Written {
    change: Change,
    cause: Option<ChangeCause>,
}

/// What the comparison of written changes with a plan has shown.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Differences whose field has become contested.
    pub contested: Vec<Difference>,
    /// Changes whose answer was lost, and that no longer differ.
    pub made: Vec<Difference>,
    /// Differences that remain although the API has accepted the change.
    pub ineffective: Vec<Difference>,
}

impl WriteProgress {
    /// The API has accepted a change.
    pub fn accepted(&mut self, difference: &Difference) {
        let field = difference.change.field();
        self.backoffs.remove(&field);
        // A deleted device cannot be read, so its deletion is never verified.
        if field != Field::DeleteInactive {
            let written = Written {
                change: difference.change.clone(),
                cause: difference.cause,
            };
            self.unverified.insert(field, Box::new(written));
        }
    }

    /// A change was made, as far as is known. Another writer may reverse it from now on.
    pub fn made(&mut self, difference: &Difference, now: Duration) {
        self.contests
            .entry(difference.change.field())
            .and_modify(|contest| contest.write(difference, now))
            .or_insert_with(|| Box::new(Contest::new(difference, now)));
    }

    /// The answer to these changes was lost.
    pub fn lost<'a>(&mut self, differences: impl Iterator<Item = &'a Difference>) {
        self.outcome_unknown.extend(differences.cloned());
    }

    /// A change has failed, and its field waits. Returns the previous failure.
    pub fn refused(&mut self, field: Field, backoff: Backoff) -> Option<Backoff> {
        self.backoffs
            .insert(field, Box::new(backoff))
            .map(|before| *before)
    }

    /// A read shows these fields: if one of them still differs, the plan shows it, and the field gets a
    /// backoff instead of being written again and again. Returns whether there are any.
    pub fn verify(&mut self, visible: impl Fn(&Field) -> bool) -> bool {
        let (seen, unseen): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unverified)
            .into_iter()
            .partition(|(field, _)| visible(field));
        let has_any = !seen.is_empty();
        self.unverified = unseen.into_iter().collect();
        self.verified.extend(seen);
        has_any
    }

    /// The next regular read shows the attributes, so no read is made for them. Returns whether there are any.
    pub fn leave_attributes(&mut self) -> bool {
        let before = self.unverified.len();
        self.unverified
            .retain(|field, _| !matches!(field, Field::Attribute(_)));
        self.unverified.len() < before
    }

    /// Whether a written change waits for verification.
    pub fn has_unverified(&self) -> bool {
        !self.unverified.is_empty()
    }

    /// Whether one of them is verified by a read of the device itself.
    pub fn has_unverified_settings(&self) -> bool {
        let mut fields = self.unverified.keys();
        fields.any(|field| !matches!(field, Field::Attribute(_)))
    }

    /// Whether the change of a field waits for verification.
    pub fn is_unverified(&self, field: &Field) -> bool {
        self.unverified.contains_key(field)
    }

    /// The written fields that have not been compared with a read since.
    pub fn written(&self) -> impl Iterator<Item = &Field> {
        self.unverified.keys().chain(self.verified.keys())
    }

    /// Why a field was written that no plan has compared since.
    pub fn cause_of_written(&self, field: &Field) -> Option<ChangeCause> {
        let written = self.unverified.get(field).or(self.verified.get(field))?;
        written.cause
    }

    /// The last failure of a field.
    pub fn backoff(&self, field: &Field) -> Option<&Backoff> {
        self.backoffs.get(field).map(Box::as_ref)
    }

    pub fn backoffs(&self) -> impl Iterator<Item = (&Field, &Backoff)> {
        self.backoffs.iter().map(|(field, it)| (field, &**it))
    }

    pub fn contest(&self, field: &Field) -> Option<&Contest> {
        self.contests.get(field).map(Box::as_ref)
    }

    pub fn contests(&self) -> impl Iterator<Item = (&Field, &Contest)> {
        self.contests.iter().map(|(field, it)| (field, &**it))
    }

    /// Whether a one-shot action may have been carried out although its answer was lost.
    pub fn has_doubtful_action(&self) -> bool {
        self.outcome_unknown.iter().any(Difference::is_action)
    }

    /// Takes the deletions whose answer was lost: the device is gone.
    pub fn take_doubtful_deletions(&mut self) -> Vec<Difference> {
        self.outcome_unknown
            .extract_if(.., |difference| {
                matches!(difference.change, Change::Delete { .. })
            })
            .collect()
    }

    /// Compares the changes with the differences of a new plan. `unsent`: whether a field waits for something
    /// else than a request. `in_question`: the device must be read before
    /// it is known whether a lost change was made.
    pub fn compare(
        &mut self,
        differences: &[Difference],
        unsent: impl Fn(&Field) -> bool,
        policies: &BTreeSet<PolicyKey>,
        in_question: bool,
        now: Duration,
    ) -> Compared {
        let verified = std::mem::take(&mut self.verified);
        let open: BTreeMap<Field, &Difference> = differences
            .iter()
            .map(|difference| (difference.change.field(), difference))
            .collect();
        let tried = |difference: &&Difference| difference.hold.is_none();
        // A hold or a conflict can end at any time, and what the API has refused must wait nonetheless.
        self.backoffs.retain(|field, backoff| {
            open.get(field).is_some_and(tried) || unsent(field) && !backoff.is_over(now)
        });
        self.contests.retain(|field, contest| {
            contest.concerns(policies.iter()) && !contest.is_over(open.contains_key(field), now)
        });
        let mut compared = Compared::default();
        for (field, contest) in self.contests.iter_mut() {
            if let Some(difference) = open.get(field).copied().filter(tried) {
                if verified.get(field).map(|it| &it.change) == Some(&difference.change) {
                    contest.note_ineffective();
                }
                let before = contest.is_contested();
                if contest.observe(difference, now) && !before {
                    compared.contested.push(difference.clone());
                }
            }
        }
        // A change whose answer was lost has taken effect if its field no longer differs.
        if !in_question {
            let doubtful = std::mem::take(&mut self.outcome_unknown).into_iter();
            let made = doubtful.filter(|it| !open.contains_key(&it.change.field()));
            compared.made = made.collect();
        }
        // A difference from an edit, or from a change by someone else, is a new difference.
        let contested = |field: &Field| self.contest(field).is_some_and(Contest::is_contested);
        let ineffective = verified.iter().filter_map(|(field, written)| {
            let difference = *open.get(field)?;
            (difference.change == written.change && !contested(field)).then(|| difference.clone())
        });
        compared.ineffective = ineffective.collect();
        compared
    }

    /// Forgets the failures of these fields, and the contests that concern a policy.
    pub fn forget_failures_of(&mut self, key: &PolicyKey, fields: impl Iterator<Item = Field>) {
        for field in fields {
            self.backoffs.remove(&field);
        }
        self.contests
            .retain(|_, contest| !contest.concerns(std::iter::once(key)));
    }

    /// Forgets all failures and contests.
    pub fn forget_failures(&mut self) {
        self.backoffs.clear();
        self.contests.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{AttributeKey, SettingValue},
        plan::Why,
    };

    const MINUTE: Duration = Duration::from_mins(1);

    fn key() -> PolicyKey {
        PolicyKey::new("network", "routers")
    }

    fn difference(change: Change) -> Difference {
        Difference {
            node: "n1CNTRL".parse().unwrap(),
            device: "fra".to_owned(),
            change,
            why: Why::Declared,
            cause: None,
            owner: key(),
            others: Vec::new(),
            hold: None,
        }
    }

    fn authorize() -> Difference {
        difference(Change::Setting {
            before: Some(SettingValue::Authorized(false)),
            after: SettingValue::Authorized(true),
        })
    }

    fn delete_attribute() -> Difference {
        let key: AttributeKey = "custom:team".parse().unwrap();
        difference(Change::Attribute {
            key,
            before: None,
            after: None,
        })
    }

    fn backoff() -> Backoff {
        Backoff::example(MINUTE)
    }

    fn compare(progress: &mut WriteProgress, differences: &[Difference], minute: u32) -> Compared {
        progress.compare(
            differences,
            |_| false,
            &[key()].into(),
            false,
            MINUTE * minute,
        )
    }

    fn is_attribute(field: &Field) -> bool {
        matches!(field, Field::Attribute(_))
    }

    #[test]
    fn a_read_verifies_only_the_fields_that_it_shows() {
        let mut progress = WriteProgress::default();
        progress.accepted(&authorize());
        progress.accepted(&delete_attribute());
        assert!(progress.has_unverified_settings());
        assert!(progress.verify(|field| !is_attribute(field)));
        assert!(!progress.verify(|field| !is_attribute(field)));
        assert!(progress.has_unverified() && !progress.has_unverified_settings());
        // Both count as written until the next plan compares them.
        assert_eq!(progress.written().count(), 2);
        assert!(progress.leave_attributes() && !progress.leave_attributes());
        assert!(!progress.has_unverified());
    }

    #[test]
    fn an_accepted_change_that_still_differs_after_a_read_is_ineffective() {
        let mut progress = WriteProgress::default();
        progress.accepted(&authorize());
        assert!(
            compare(&mut progress, &[authorize()], 1)
                .ineffective
                .is_empty()
        );
        progress.verify(|_| true);
        let compared = compare(&mut progress, &[authorize()], 2);
        assert_eq!(compared.ineffective, [authorize()]);
        // It is compared once for each read.
        assert!(
            compare(&mut progress, &[authorize()], 3)
                .ineffective
                .is_empty()
        );
        progress.accepted(&authorize());
        progress.verify(|_| true);
        assert!(compare(&mut progress, &[], 4).ineffective.is_empty());
    }

    #[test]
    fn a_lost_change_is_made_if_it_no_longer_differs_once_that_is_known() {
        let mut progress = WriteProgress::default();
        progress.lost([authorize(), delete_attribute()].iter());
        let unknown = progress.compare(&[], |_| false, &[key()].into(), true, MINUTE);
        assert!(unknown.made.is_empty());
        let compared = compare(&mut progress, &[authorize()], 2);
        assert_eq!(compared.made, [delete_attribute()]);
        assert!(compare(&mut progress, &[], 3).made.is_empty());
    }

    #[test]
    fn a_failure_counts_until_its_time_is_over_even_if_the_change_is_held_meanwhile() {
        let field = authorize().change.field();
        let mut progress = WriteProgress::default();
        assert!(progress.refused(field.clone(), backoff()).is_none());
        assert!(progress.refused(field.clone(), backoff()).is_some());
        compare(&mut progress, &[authorize()], 1);
        assert!(progress.backoff(&field).is_some());
        let retry_at = backoff().retry_at;
        let mut compare_at = |now| {
            progress.compare(&[], |it| *it == field, &[key()].into(), false, now);
            progress.backoff(&field).is_some()
        };
        assert!(compare_at(retry_at.saturating_sub(MINUTE)));
        assert!(!compare_at(retry_at));
        progress.refused(field.clone(), backoff());
        progress.accepted(&authorize());
        assert!(progress.backoff(&field).is_none());
    }

    #[test]
    fn a_field_that_is_changed_back_again_and_again_becomes_contested_once() {
        let mut progress = WriteProgress::default();
        let mut contested = 0;
        for minute in 1..6 {
            progress.made(&authorize(), MINUTE * minute);
            contested += compare(&mut progress, &[authorize()], minute)
                .contested
                .len();
        }
        assert_eq!(contested, 1);
        let field = authorize().change.field();
        assert!(progress.contest(&field).is_some_and(Contest::is_contested));
        let other = PolicyKey::new("network", "other");
        progress.forget_failures_of(&other, std::iter::empty());
        assert_eq!(progress.contests().count(), 1);
        progress.forget_failures_of(&key(), std::iter::empty());
        assert_eq!(progress.contests().count(), 0);
    }
}
