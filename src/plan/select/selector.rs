use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use crate::model::{Device, DeviceField, TagSet, UnreadableFields, folded, is_same_name};
use crate::plan::{Expression, ExpressionError, Owner};

/// Selects devices: a device must match all parts. An empty part matches every device. External devices never
/// match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Tags that a device must have, all of them.
    pub tags: TagSet,
    /// Patterns, each of which one of the device's tags must match.
    pub tag_patterns: Vec<Glob>,
    /// Patterns, one of which its user must match. A tagged device has no user.
    pub users: Vec<Glob>,
    /// Patterns, one of which its hostname must match, ignoring case.
    pub hostnames: Vec<Glob>,
    /// Operating systems, one of which the machine must report, ignoring case.
    pub os: Vec<String>,
    /// A condition that must hold for it.
    pub expression: Option<Expression>,
}

impl Selector {
    /// Whether a device matches, whatever its unreadable fields are. It does not match if the expression
    /// fails.
    #[must_use]
    pub fn matches(&self, device: &Device) -> bool {
        self.may_match(device) && self.undecided_by(device).is_empty()
    }

    /// Whether a device matches, or may match: that depends on a field that cannot be read.
    #[must_use]
    pub fn may_match(&self, device: &Device) -> bool {
        // A selector that fails matches nothing: a wrong match would change a device that nobody meant.
        self.check(device).unwrap_or(false)
    }

    /// Whether a device matches or may match, or why the expression fails if all other parts do.
    pub fn check(&self, device: &Device) -> Result<bool, ExpressionError> {
        self.evaluate(device).0
    }

    /// As [`Selector::check`], with the steps that it took.
    pub fn evaluate(&self, device: &Device) -> (Result<bool, ExpressionError>, usize) {
        let steps = Cell::new(0);
        let others_match = self.may_match_without_expression(device, &steps);
        match &self.expression {
            // Last, because it costs the most. It must not see the placeholder of an unreadable field: the
            // device may match then, and its policies wait.
            Some(expression) if others_match && !expression.reads_unknown(device) => {
                let (result, taken) = expression.evaluate(device);
                (result, steps.get() + taken)
            }
            _ => (Ok(others_match), steps.get()),
        }
    }

    /// The unreadable fields of a device that keep it unknown whether the device matches.
    #[must_use]
    pub fn undecided_by(&self, device: &Device) -> UnreadableFields {
        // A readable part that does not match decides, whatever the other fields are.
        if device.unreadable.is_empty() || !self.may_match(device) {
            return UnreadableFields::default();
        }
        let has_tags = !self.tags.is_empty() || !self.tag_patterns.is_empty();
        let parts = [
            (true, DeviceField::IsExternal),
            // Users depend on the tags too: a tagged device has no user.
            (has_tags || !self.users.is_empty(), DeviceField::Tags),
            (!self.users.is_empty(), DeviceField::User),
            (!self.hostnames.is_empty(), DeviceField::Hostname),
            (!self.os.is_empty(), DeviceField::Os),
        ];
        let expression = self.expression.iter();
        parts
            .into_iter()
            .filter(|(is_needed, field)| *is_needed && device.is_unknown(*field))
            .map(|(_, field)| field)
            .chain(expression.flat_map(|expression| expression.unknown(device)))
            .collect()
    }

    /// Whether a device may have left because someone has signed in on it: it belongs to a user, and it lacks a
    /// tag that it must have, or the user is another one.
    #[must_use]
    pub fn may_lose_by_sign_in(&self, device: &Device) -> bool {
        let is_known = Owner::unknown(device).is_empty();
        let is_of_user = is_known && device.tags.is_empty();
        let needs_tags = !self.tags.is_empty() || !self.tag_patterns.is_empty();
        let mut users = self.users.iter();
        let needs_other = !self.users.is_empty() && !users.any(|it| it.matches(&device.user));
        is_of_user && !device.external && (needs_tags || needs_other)
    }

    /// Whether all parts but the expression match, as far as their fields can be read.
    fn may_match_without_expression(&self, device: &Device, steps: &Cell<usize>) -> bool {
        let matches = |pattern: &Glob, text: &str| {
            let (is_match, taken) = pattern.compare(text);
            steps.set(steps.get() + taken);
            is_match
        };
        let unknown = |field: DeviceField| device.is_unknown(field);
        let any = |globs: &[Glob], text: &str| globs.iter().any(|glob| matches(glob, text));
        !device.external
            && (unknown(DeviceField::Tags)
                || self.tags.is_subset(&device.tags)
                    && self.tag_patterns.iter().all(|pattern| {
                        let mut tags = device.tags.iter();
                        tags.any(|tag| matches(pattern, tag.as_str()))
                    }))
            // The API still names the user who registered a tagged device, but its tags own it. Unreadable tags
            // are empty here, as those of a device that a user owns.
            && (self.users.is_empty()
                || device.tags.is_empty()
                    && (unknown(DeviceField::User) || any(&self.users, &device.user)))
            && (self.hostnames.is_empty()
                || unknown(DeviceField::Hostname)
                || any(&self.hostnames, &folded(&device.hostname)))
            && (self.os.is_empty()
                || unknown(DeviceField::Os)
                || self.os.iter().any(|os| is_same_name(os, &device.os)))
    }
}

/// A pattern for a whole string: `*` matches any characters, `?` any single one, everything else itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| f.write_char(*letter))
    }
}

impl Glob {
    /// Parses a pattern. Every string is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// As [`Glob::new`], for strings that are [`folded`].
    #[must_use]
    pub fn of_folded(pattern: &str) -> Self {
        Self::new(&folded(pattern))
    }

    /// Whether a whole string matches. Takes at most pattern times string steps: after a mismatch, only the
    /// last `*` takes one more character, because an earlier one would gain nothing by it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.compare(text).0
    }

    /// As [`Glob::matches`], with the steps that it took.
    fn compare(&self, text: &str) -> (bool, usize) {
        // Letters, not bytes: `?` matches one letter of any script.
        let (pattern, text) = (&self.0, text.chars().collect::<Vec<_>>());
        // Splitting the text into letters costs steps too.
        let (mut at, mut seen, mut steps) = (0, 0, text.len());
        let mut star: Option<(usize, usize)> = None;
        while seen < text.len() {
            steps += 1;
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == text[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else {
                        return (false, steps);
                    };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    seen = taken + 1;
                }
            }
        }
        let is_match = pattern[at..].iter().all(|letter| *letter == '*');
        (is_match, steps)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Glob, folded};

    /// A simple reference implementation.
    fn fits(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                fits(rest, text) || (!text.is_empty() && fits(pattern, &text[1..]))
            }
            ([one, rest @ ..], [letter, others @ ..]) => {
                (*one == '?' || one == letter) && fits(rest, others)
            }
            _ => false,
        }
    }

    /// A machine must not escape a pattern by the spelling of its hostname.
    #[test]
    fn a_hostname_matches_however_it_is_spelled() {
        for pattern in ["büro-*", "BÜRO-*", "b?ro-pc"] {
            let pattern = Glob::of_folded(pattern);
            for hostname in ["BÜRO-PC", "büro-pc", "BU\u{308}RO-PC"] {
                assert!(pattern.matches(&folded(hostname)), "{hostname}");
            }
            assert!(!pattern.matches(&folded("büro2-pc")));
        }
    }

    proptest! {
        #[test]
        fn glob_matches_like_the_reference(pattern in "[ab*?ä]{0,7}", text in "[abä]{0,8}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = fits(&letters(&pattern), &letters(&text));
            prop_assert_eq!(Glob::new(&pattern).matches(&text), expected);
        }
    }
}
