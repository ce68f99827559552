//! The built-in set `grammar`: sentences of a small grammar, and a test of whether a sentence belongs to it.

use std::collections::HashMap;
use std::sync::LazyLock;

use lsgm_core::{Rng, Split};

/// The rules: a name, and its alternatives. A word of an alternative that is no name stands for itself.
///
/// Subjects and verbs agree in number, articles in number and sound (`an old owl`, `a red kite`), and verbs want their
/// own kinds of complement, over distances of up to seven words.
const RULES: &[(&str, &[&str])] = &[
    ("SENTENCE", &["CLAUSE .", "CLAUSE .", "CLAUSE CONJUNCTION CLAUSE .", "ADVERB , CLAUSE ."]),
    ("CLAUSE", &["ONE ONE-DOES", "MANY MANY-DO"]),
    ("ONE", &["ONE-PLAIN", "ONE-PLAIN", "ONE-PLAIN PLACE", "ONE-PLAIN that ONE-TAKES THING"]),
    ("MANY", &["MANY-PLAIN", "MANY-PLAIN", "MANY-PLAIN PLACE", "MANY-PLAIN that MANY-TAKE THING"]),
    ("ONE-PLAIN", &["the ONE-NAMED", "every ONE-NAMED", "a SOFT-START", "an OPEN-START"]),
    ("ONE-NAMED", &["ANIMAL", "SOFT-QUALITY ANIMAL", "OPEN-QUALITY ANIMAL"]),
    ("SOFT-START", &["SOFT-ANIMAL", "SOFT-QUALITY ANIMAL"]),
    ("OPEN-START", &["OPEN-ANIMAL", "OPEN-QUALITY ANIMAL"]),
    ("MANY-PLAIN", &["the MANY-NAMED", "two MANY-NAMED", "three MANY-NAMED", "some MANY-NAMED"]),
    ("MANY-NAMED", &["ANIMALS", "SOFT-QUALITY ANIMALS", "OPEN-QUALITY ANIMALS"]),
    ("ANIMAL", &["SOFT-ANIMAL", "SOFT-ANIMAL", "OPEN-ANIMAL"]),
    ("SOFT-ANIMAL", &["fox", "cat", "kite", "horse", "toad", "goose"]),
    ("OPEN-ANIMAL", &["owl", "ant", "otter"]),
    ("ANIMALS", &["foxes", "cats", "kites", "horses", "toads", "geese", "owls", "ants", "otters"]),
    ("SOFT-QUALITY", &["red", "small", "quiet", "brave"]),
    ("OPEN-QUALITY", &["old", "idle", "eager"]),
    ("PLACE", &["WHERE the SPOT"]),
    ("WHERE", &["near", "behind", "under", "beside"]),
    ("SPOT", &["river", "barn", "oak", "wall", "well", "hill"]),
    ("ONE-DOES", &["ONE-ACTS", "ONE-ACTS PLACE", "ONE-TAKES THING", "is STATE", "ONE-SAYS that CLAUSE"]),
    ("MANY-DO", &["MANY-ACT", "MANY-ACT PLACE", "MANY-TAKE THING", "are STATE", "MANY-SAY that CLAUSE"]),
    ("ONE-ACTS", &["sleeps", "waits", "hides", "sings"]),
    ("MANY-ACT", &["sleep", "wait", "hide", "sing"]),
    ("ONE-TAKES", &["sees", "follows", "fears", "carries"]),
    ("MANY-TAKE", &["see", "follow", "fear", "carry"]),
    ("ONE-SAYS", &["knows", "hopes"]),
    ("MANY-SAY", &["know", "hope"]),
    ("STATE", &["SOFT-QUALITY", "OPEN-QUALITY", "not SOFT-QUALITY", "not OPEN-QUALITY"]),
    ("THING", &["ONE-PLAIN", "MANY-PLAIN"]),
    ("ADVERB", &["today", "often", "at night"]),
    ("CONJUNCTION", &["and", "but", "while"]),
];

/// Longest sentence in words and marks; longer draws are drawn again.
const LONGEST: usize = 15;

/// Sentences of a small grammar, made from a seed.
///
/// Sentence `i` is a function of the seed, the split and `i` alone, and there is no last one: the length only says how
/// many make an epoch. There are far more sentences than any epoch holds, so that splits share but the shortest.
///
/// ```
/// use lsgm_core::Split;
/// use lsgm_data::Grammar;
/// let grammar = Grammar::new(0, Split::Train, 100);
/// assert!(Grammar::accepts(&grammar.sentence(42)));
/// assert!(!Grammar::accepts("the foxes sleeps."));
/// ```
#[derive(Debug, Clone)]
pub struct Grammar {
    stream: Rng,
    items: usize,
}

impl Grammar {
    /// The stream of a split, of which `items` make an epoch.
    pub fn new(seed: u64, split: Split, items: usize) -> Self {
        Self { stream: Rng::new(seed).fork("grammar").fork(split.name()), items }
    }

    /// Sentences of an epoch.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Sentence `index`, with a full stop and without a line end.
    pub fn sentence(&self, index: usize) -> String {
        let mut rng = self.stream.fork(&index.to_string());
        loop {
            let mut words = Vec::new();
            expand(0, &mut rng, &mut words);
            if words.len() <= LONGEST {
                return words.join(" ").replace(" .", ".").replace(" ,", ",");
            }
        }
    }

    /// Whether a text is one sentence of the grammar, of whatever length.
    pub fn accepts(text: &str) -> bool {
        let spaced = text.replace('.', " .").replace(',', " ,");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        // A text with other spacing is another text.
        let again = words.join(" ").replace(" .", ".").replace(" ,", ",");
        again == text && Parse::new(&words).ends(0, 0).contains(&words.len())
    }
}

/// A part of an alternative.
#[derive(Debug, Clone, Copy)]
enum Part {
    Rule(usize),
    Word(&'static str),
}

/// The alternatives of every rule.
static TABLE: LazyLock<Vec<Vec<Vec<Part>>>> = LazyLock::new(|| {
    let part = |word: &'static str| match RULES.iter().position(|(name, _)| *name == word) {
        Some(rule) => Part::Rule(rule),
        None => Part::Word(word),
    };
    let alternatives =
        |rule: &(&str, &[&'static str])| rule.1.iter().map(|a| a.split(' ').map(part).collect()).collect();
    RULES.iter().map(alternatives).collect()
});

fn expand(rule: usize, rng: &mut Rng, words: &mut Vec<&'static str>) {
    let alternatives = &TABLE[rule];
    for part in &alternatives[rng.below(alternatives.len())] {
        match part {
            // What is too long already is drawn again by the caller.
            _ if words.len() > LONGEST => return,
            Part::Word(word) => words.push(word),
            Part::Rule(rule) => expand(*rule, rng, words),
        }
    }
}

/// Recognition of a sentence: where each rule can end that starts at a word. No rule starts with itself, so the
/// recursion ends.
struct Parse<'a> {
    words: &'a [&'a str],
    known: HashMap<(usize, usize), Vec<usize>>,
}

impl<'a> Parse<'a> {
    fn new(words: &'a [&'a str]) -> Self {
        Self { words, known: HashMap::new() }
    }

    fn ends(&mut self, rule: usize, start: usize) -> Vec<usize> {
        if let Some(ends) = self.known.get(&(rule, start)) {
            return ends.clone();
        }
        let mut found = Vec::new();
        for alternative in &TABLE[rule] {
            let mut reached = vec![start];
            for part in alternative {
                reached = reached.into_iter().flat_map(|at| self.after(*part, at)).collect();
            }
            found.extend(reached);
        }
        found.sort_unstable();
        found.dedup();
        self.known.insert((rule, start), found.clone());
        found
    }

    fn after(&mut self, part: Part, at: usize) -> Vec<usize> {
        match part {
            Part::Rule(rule) => self.ends(rule, at),
            Part::Word(word) => (self.words.get(at) == Some(&word)).then_some(at + 1).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_parses_and_depends_on_its_index_alone() {
        let grammar = Grammar::new(3, Split::Train, 2000);
        let sentences: Vec<String> = (0..2000).map(|i| grammar.sentence(i)).collect();
        assert!(sentences.iter().all(|s| Grammar::accepts(s)));
        assert_eq!(grammar.sentence(1234), sentences[1234]);
        assert_ne!(Grammar::new(4, Split::Train, 9).sentence(5), sentences[5]);
        let mut distinct = sentences.clone();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 1800, "{}", distinct.len());
        let test = Grammar::new(3, Split::Test, 500);
        let shared = (0..500).filter(|i| distinct.binary_search(&test.sentence(*i)).is_ok()).count();
        assert!(shared < 50, "{shared}");
    }

    #[test]
    fn what_breaks_a_rule_does_not_parse() {
        for good in [
            "a red fox sleeps.",
            "an old owl that sees three foxes is not idle.",
            "at night, the owls near the barn know that an ant waits.",
        ] {
            assert!(Grammar::accepts(good), "{good}");
        }
        for wrong in [
            "",
            "a old fox sleeps.",
            "an fox sleeps.",
            "the owls near the barn knows that an ant waits.",
            "a red fox sleeps",
            "a red fox  sleeps.",
            "a red fox sleeps the owl.",
            "A red fox sleeps.",
            "a red fox sleeps. a red fox sleeps.",
        ] {
            assert!(!Grammar::accepts(wrong), "{wrong}");
        }
    }

    #[test]
    fn no_name_is_misspelt() {
        for (_, alternatives) in RULES {
            for word in alternatives.iter().flat_map(|a| a.split(' ')) {
                let is_name = word.chars().all(|c| c.is_uppercase() || c == '-');
                assert_eq!(is_name, RULES.iter().any(|(name, _)| *name == word), "{word}");
            }
        }
    }
}
