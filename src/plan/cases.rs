//! How many cases a property test tries, and what becomes of one that fails.

use proptest::prelude::ProptestConfig;

/// So many cases, unless `PROPTEST_CASES` sets another number. The seed of a case that fails is printed,
/// and kept below `proptest-regressions/`: each later run tries it first.
pub(super) fn cases(usual: u32) -> ProptestConfig {
    let number = std::env::var("PROPTEST_CASES");
    let number = number.ok().and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: number.unwrap_or(usual),
        ..ProptestConfig::default()
    }
}
