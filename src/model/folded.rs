use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};

/// A name in the form in which names are compared where case does not count: `BÜRO-PC`, `büro-pc` and the
/// decomposed form that macOS reports are the same.
///
/// This is the canonical caseless match of the Unicode standard (section 3.13, D145).
#[must_use]
pub fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Decomposed first: folding a composed letter can give another result.
    let decomposed = DecomposingNormalizer::new_nfd().normalize(name);
    let folded = CaseMapper::new().fold_string(&decomposed).into_owned();
    // Composed, because folding can leave equal names in different forms.
    ComposingNormalizer::new_nfc()
        .normalize(&folded)
        .into_owned()
}

/// Whether two names are the same where case does not count.
#[must_use]
pub fn is_same_name(a: &str, b: &str) -> bool {
    // The first test decides almost always, and allocates nothing.
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && folded(a) == folded(b))
}

#[cfg(test)]
mod tests {
    use super::{folded, is_same_name};

    #[test]
    fn names_that_differ_in_case_or_composition_are_the_same() {
        let same = [
            ("FRA-Router", "fra-router"),
            ("BÜRO-PC", "büro-pc"),
            ("bu\u{308}ro-pc", "b\u{fc}ro-pc"),
            ("BU\u{308}RO-PC", "büro-pc"),
            ("STRASSE", "straße"),
            ("ΟΔΟΣ", "οδος"),
            ("οδος", "οδοσ"),
            ("ПРИНТЕР", "принтер"),
        ];
        for (a, b) in same {
            assert_eq!(folded(a), folded(b), "{a} {b}");
            assert!(is_same_name(a, b), "{a} {b}");
        }
    }

    #[test]
    fn names_that_differ_otherwise_stay_apart() {
        for (a, b) in [("buro-pc", "büro-pc"), ("fra-1", "fra-2"), ("ı", "i")] {
            assert_ne!(folded(a), folded(b), "{a} {b}");
            assert!(!is_same_name(a, b), "{a} {b}");
        }
    }
}
