use std::fmt;

/// `1 device`, `3 devices`, `2 policies`.
#[must_use]
pub fn counted<T: Copy + fmt::Display + PartialEq + From<u8>>(count: T, noun: &str) -> String {
    if count == T::from(1) {
        return format!("{count} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) => format!("{count} {stem}ies"),
        None => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_have_the_number_of_their_count() {
        let counted =
            [0, 1, 2].map(|count: u32| [counted(count, "device"), counted(count, "policy")]);
        assert_eq!(
            counted.concat(),
            [
                "0 devices",
                "0 policies",
                "1 device",
                "1 policy",
                "2 devices",
                "2 policies"
            ]
        );
    }
}
