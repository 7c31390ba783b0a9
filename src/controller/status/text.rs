//! Numbers and times as a status writes them.

pub(super) use crate::{convert::whole_second, model::counted};

pub(super) fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// What a policy declared for a time that is over, as a sentence that follows another one.
pub(super) fn expired(declared: impl IntoIterator<Item: ToString>) -> String {
    let settings: Vec<_> = declared.into_iter().map(|it| it.to_string()).collect();
    if settings.is_empty() {
        return String::new();
    }
    format!(
        " No longer declared, as the expiry has passed: {}.",
        settings.join(", ")
    )
}

/// A text of at most so many bytes and an ellipsis.
pub(in crate::controller) fn bounded(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(bounded("aé".to_owned(), 3), "aé");
        assert_eq!(bounded("aéb".to_owned(), 3), "aé…");
        assert_eq!(bounded("aéb".to_owned(), 2), "a…");
    }
}
