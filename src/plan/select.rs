use std::cell::Cell;

use super::{Expression, ExpressionError};
use crate::model::{Device, TagSet};

/// Which devices a policy means: all parts that are given must fit. Parts that are empty are not
/// given. Devices of other tailnets never fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// A device has all of these.
    pub tags: TagSet,
    /// A device has a tag for each of these.
    pub tag_patterns: Vec<Glob>,
    /// Its user fits one of these. A tagged device has no user.
    pub users: Vec<Glob>,
    /// What the machine calls itself fits one of these, whatever the case.
    pub hostnames: Vec<Glob>,
    /// What the machine says of its operating system is one of these, whatever the case.
    pub os: Vec<String>,
    /// This holds of it.
    pub expression: Option<Expression>,
}

impl Selector {
    /// Whether a device is meant. One of which the expression cannot tell is not.
    #[must_use]
    pub fn matches(&self, device: &Device) -> bool {
        self.check(device).unwrap_or(false)
    }

    /// Whether a device is meant, or why the expression cannot tell though all else fits.
    pub fn check(&self, device: &Device) -> Result<bool, ExpressionError> {
        self.evaluate(device).0
    }

    /// As [`Selector::check`], with the steps that it took.
    pub fn evaluate(&self, device: &Device) -> (Result<bool, ExpressionError>, usize) {
        let steps = Cell::new(0);
        let fits_besides = self.matches_besides(device, &steps);
        match &self.expression {
            Some(expression) if fits_besides => {
                let (result, taken) = expression.evaluate(device);
                (result, steps.get() + taken)
            }
            expression => (Ok(expression.is_none() && fits_besides), steps.get()),
        }
    }

    /// Whether all parts but the expression fit.
    fn matches_besides(&self, device: &Device, steps: &Cell<usize>) -> bool {
        let fits = |pattern: &Glob, text: &str| {
            let (fits, taken) = pattern.compare(text);
            steps.set(steps.get() + taken);
            fits
        };
        let any = |globs: &[Glob], text: &str| globs.iter().any(|glob| fits(glob, text));
        let tag = |pattern: &Glob| device.tags.iter().any(|tag| fits(pattern, tag.as_str()));
        let user = || device.tags.is_empty() && any(&self.users, &device.user);
        let hostname = || any(&self.hostnames, &device.hostname.to_ascii_lowercase());
        let os = || self.os.iter().any(|os| os.eq_ignore_ascii_case(&device.os));
        !device.external
            && self.tags.is_subset(&device.tags)
            && self.tag_patterns.iter().all(tag)
            && (self.users.is_empty() || user())
            && (self.hostnames.is_empty() || hostname())
            && (self.os.is_empty() || os())
    }
}

/// A pattern for a whole text: `*` is any characters, `?` is any one, all else is itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl Glob {
    /// Every text is a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// As [`Glob::new`], for texts in lower case.
    #[must_use]
    pub fn lower_case(pattern: &str) -> Self {
        Self::new(&pattern.to_ascii_lowercase())
    }

    /// Whether the whole of a text fits. Takes at most pattern times text steps: after a mismatch
    /// only the last `*` takes one character more, as an earlier one could gain nothing by it.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.compare(text).0
    }

    /// As [`Glob::fits`], with the steps that it took.
    fn compare(&self, text: &str) -> (bool, usize) {
        let (pattern, text) = (&self.0, text.chars().collect::<Vec<_>>());
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
        let fits = pattern[at..].iter().all(|letter| *letter == '*');
        (fits, steps)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Glob;

    /// What a glob means, said in the shortest way.
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

    proptest! {
        #[test]
        fn a_glob_fits_what_it_means(pattern in "[ab*?ä]{0,7}", text in "[abä]{0,8}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = fits(&letters(&pattern), &letters(&text));
            prop_assert_eq!(Glob::new(&pattern).matches(&text), expected);
        }
    }
}
