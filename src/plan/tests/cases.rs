//! The number of cases of a property test.

use proptest::prelude::ProptestConfig;

/// This many cases, unless `PROPTEST_CASES` sets another number. The seed of a failing case is printed and
/// stored below `proptest-regressions/`, and each later run tries it first.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let number = std::env::var("PROPTEST_CASES");
    let number = number.ok().and_then(|number| number.parse().ok());
    ProptestConfig {
        cases: number.unwrap_or(usual),
        ..ProptestConfig::default()
    }
}
