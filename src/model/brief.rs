//! Long lists for people: the first and the last entries, and the exact number of the others.

/// The most entries that are written in full.
pub const MAX_BRIEF: usize = 8;
/// How many of a longer list are written at its beginning; fewer at its end.
const FIRST: usize = 4;
const LAST: usize = 3;

/// The entries of a list, shortened in the middle if they are many.
#[must_use]
pub fn brief(entries: &[String]) -> Vec<String> {
    if entries.len() <= MAX_BRIEF {
        return entries.to_vec();
    }
    let (first, rest) = entries.split_at(FIRST);
    let (middle, last) = rest.split_at(rest.len() - LAST);
    let mut brief = first.to_vec();
    brief.push(format!("… {} more …", middle.len()));
    brief.extend_from_slice(last);
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    #[test]
    fn a_long_list_is_shortened_in_the_middle_with_an_exact_count() {
        let brief = brief(&numbers(3000));
        assert_eq!(brief.join(","), "0,1,2,3,… 2993 more …,2997,2998,2999");
    }

    #[test]
    fn a_short_list_is_written_in_full() {
        for count in 0..=MAX_BRIEF {
            assert_eq!(brief(&numbers(count)), numbers(count));
        }
    }
}
