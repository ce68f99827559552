//! "Did you mean ...?"

/// The candidate that is fewest edits away from `word`, unless more than half of the word would have to change.
///
/// ```
/// assert_eq!(lsgm_data::nearest("binarisation", ["set", "binarization"]), Some("binarization"));
/// assert_eq!(lsgm_data::nearest("xyz", ["set", "binarization"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|c| (edits(word, c), c));
    let (distance, candidate) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.chars().count().div_ceil(2)).then_some(candidate)
}

/// The Levenshtein distance: insertions, deletions and substitutions of characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cb, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A parser's message about an unknown key, with the nearest known one appended.
pub(crate) fn with_nearest_key(message: &str) -> String {
    let message = message.trim();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (true, Some(word)) = (message.starts_with("unknown "), quoted.next()) else { return message.to_owned() };
    match nearest(word, quoted) {
        Some(key) => format!("{message}; did you mean `{key}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("mnist", "mnist", 0)] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn messages_of_the_parser_gain_a_suggestion() {
        let message = with_nearest_key("unknown field `titel`, expected one of `name`, `title`\n");
        assert_eq!(message, "unknown field `titel`, expected one of `name`, `title`; did you mean `title`?");
        assert_eq!(with_nearest_key("invalid type: `x`"), "invalid type: `x`");
    }
}
