//! The nearest known name to one that is not known.

/// The candidate with the smallest distance to `name`.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|c| distance(name, c))
}

/// Whether `candidate` is near enough to `name` to be what was meant.
pub(crate) fn is_close(name: &str, candidate: &str) -> bool {
    distance(name, candidate) <= 1 + name.chars().count() / 4
}

/// The edit distance; an abbreviation counts as one edit.
fn distance(name: &str, candidate: &str) -> usize {
    let abbreviates = name.len() >= 3 && name != candidate && candidate.starts_with(name);
    if abbreviates { 1 } else { edit_distance(name, candidate) }
}

/// Number of insertions, deletions, substitutions and swaps of neighbours between two names (optimal string
/// alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        (before_last, last) = (last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in
            [("", "", 0), ("", "abc", 3), ("steps", "stesp", 1), ("step", "steps", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edit_distance(a, b), d, "{a} {b}");
            assert_eq!(edit_distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn the_nearest_name_wins() {
        assert_eq!(nearest("bach_size", ["seed", "batch_size", "steps"]), Some("batch_size"));
        assert!(is_close("bach_size", "batch_size") && !is_close("colour", "batch_size"));
        assert_eq!(nearest("tol", ["mean", "tolerance"]), Some("tolerance"));
        assert_eq!(nearest("x", []), None);
    }
}
