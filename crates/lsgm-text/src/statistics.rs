//! Statistics of texts that need no model: how varied they are, and how much of them is copied.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Runs of `n` words of known texts, to tell what was copied from them.
///
/// Words are runs of characters without white space. A run is kept as a hash of 64 bits: among a million of them, one in
/// twenty million runs is taken for known by mistake.
#[derive(Debug, Clone)]
pub(crate) struct Ngrams {
    n: usize,
    known: HashSet<u64>,
}

impl Ngrams {
    /// The runs of `n` words of `texts`; `n` of 0 keeps whole texts.
    pub(crate) fn of<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, n: usize) -> Self {
        let mut ngrams = Self { n, known: HashSet::new() };
        for text in texts {
            let hashes = ngrams.hashes(text.as_ref());
            ngrams.known.extend(hashes);
        }
        ngrams
    }

    /// Whether every run of a text is known; `None` for a text without a run.
    pub(crate) fn covers(&self, text: &str) -> Option<bool> {
        let hashes = self.hashes(text);
        (!hashes.is_empty()).then(|| hashes.iter().all(|h| self.known.contains(h)))
    }

    fn hashes(&self, text: &str) -> Vec<u64> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let words: Vec<&str> = text.split_whitespace().collect();
        match self.n {
            0 => vec![hasher.hash_one(&words)],
            n => words.windows(n).map(|run| hasher.hash_one(run)).collect(),
        }
    }
}

/// The share of texts that `ngrams` cover, among those that have a run at all, and the number of these.
pub(crate) fn covered<T: AsRef<str>>(ngrams: &Ngrams, texts: &[T]) -> (f64, usize) {
    let found: Vec<bool> = texts.iter().filter_map(|t| ngrams.covers(t.as_ref())).collect();
    let covered = found.iter().filter(|c| **c).count();
    (covered as f64 / found.len().max(1) as f64, found.len())
}

/// Distinct-n (Li et al. 2016): the number of different runs of `n` words over the number of all. It falls with the number
/// of texts: compare it for equally many.
pub(crate) fn distinct<T: AsRef<str>>(texts: &[T], n: usize) -> f64 {
    let (mut known, mut all) = (HashSet::new(), 0usize);
    for text in texts {
        let words: Vec<&str> = text.as_ref().split_whitespace().collect();
        for run in words.windows(n.max(1)) {
            all += 1;
            known.insert(run.to_vec());
        }
    }
    known.len() as f64 / all.max(1) as f64
}

/// The share of runs of `n` words that repeat one of the same text.
pub(crate) fn repetition<T: AsRef<str>>(texts: &[T], n: usize) -> f64 {
    let (mut repeated, mut all) = (0usize, 0usize);
    for text in texts {
        let words: Vec<&str> = text.as_ref().split_whitespace().collect();
        let mut known = HashSet::new();
        for run in words.windows(n.max(1)) {
            all += 1;
            repeated += usize::from(!known.insert(run));
        }
    }
    repeated as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_from_new_texts() {
        let pairs = Ngrams::of(["a b c", "c d"], 2);
        assert_eq!(pairs.covers("a  b c d"), Some(true));
        assert_eq!(pairs.covers("a b d"), Some(false));
        assert_eq!(pairs.covers("a"), None);
        let whole = Ngrams::of(["a b c"], 0);
        assert_eq!((whole.covers("a b c"), whole.covers("a b")), (Some(true), Some(false)));
        assert_eq!(covered(&pairs, &["a b", "b a", "x"]), (0.5, 2));
    }

    #[test]
    fn variety_and_repetition_are_shares() {
        let texts = ["a b a b", "a b"];
        assert!((distinct(&texts, 1) - 2.0 / 6.0).abs() < 1e-12);
        assert!((distinct(&texts, 2) - 2.0 / 4.0).abs() < 1e-12);
        assert!((repetition(&texts, 2) - 1.0 / 4.0).abs() < 1e-12);
        assert_eq!(distinct::<&str>(&[], 1), 0.0);
    }
}
