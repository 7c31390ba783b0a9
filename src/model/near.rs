/// The known word that a misspelled one most likely stands for.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let known = known.into_iter().filter(|known| !known.is_empty());
    let near = known.filter_map(|known| {
        let edits = distance(&word.to_ascii_lowercase(), &known.to_ascii_lowercase())?;
        Some((edits, known))
    });
    near.min_by_key(|(edits, _)| *edits).map(|(_, known)| known)
}

/// The number of edits from one word to the other, if they are similar.
fn distance(word: &str, known: &str) -> Option<usize> {
    // Also a word without its beginning or end: routes for enabledRoutes. Shorter ones are part of
    // too many words.
    let part = word.len() >= 3 && (known.contains(word) || word.contains(known));
    let edits = strsim::damerau_levenshtein(word, known);
    // At least one edit, as a third of a word as short as `os` is none.
    let close = edits <= 1.max(known.len() / 3);
    (close || part).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = [
            "tags",
            "enabledRoutes",
            "keyExpiry",
            "os",
            "name",
            "device",
            "deviceSelector",
        ];
        for (word, near) in [
            ("tag", Some("tags")),
            ("Tags", Some("tags")),
            ("routes", Some("enabledRoutes")),
            ("keyexpiry", Some("keyExpiry")),
            ("enabeldRoutes", Some("enabledRoutes")),
            ("devices", Some("device")),
            ("selector", Some("deviceSelector")),
            ("frequency", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), near, "{word}");
        }
    }
}
