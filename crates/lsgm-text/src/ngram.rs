//! An n-gram model with modified Kneser–Ney smoothing.

use std::collections::HashMap;

/// Highest order: a key holds four tokens of 32 bits.
const MOST: usize = 4;

/// An interpolated n-gram model with modified Kneser–Ney smoothing (Chen and Goodman 1998, section 3), the baseline that a
/// bound of a text model is held against.
///
/// The highest order is estimated from counts, each lower one from the number of different tokens that go before, and the
/// lowest is interpolated with the uniform distribution, so that no token has probability 0.
#[derive(Debug, Clone)]
pub(crate) struct NgramModel {
    vocabulary: usize,
    /// Order 1 first.
    orders: Vec<Order>,
    end: Option<u32>,
}

/// One order: what is known of each context, and of each token in it.
#[derive(Debug, Clone, Default)]
struct Order {
    counts: HashMap<u128, u32>,
    contexts: HashMap<u128, Context>,
    /// What is taken off a count of 1, of 2, and of 3 and more.
    discounts: [f64; 3],
}

/// Sums over the tokens that follow a context.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    total: u64,
    /// Number of tokens seen once, twice, and more often.
    kinds: [u32; 3],
}

impl NgramModel {
    /// Fit to sequences of tokens below `vocabulary`. With an `end`, each sequence ends with it and begins where nothing
    /// goes before: its first tokens are told apart from others. Orders above 4 are cut to 4.
    pub(crate) fn fit<'a>(
        order: usize,
        vocabulary: usize,
        sequences: impl IntoIterator<Item = &'a [u32]>,
        end: Option<u32>,
    ) -> Self {
        let order = order.clamp(1, MOST);
        let mut highest = HashMap::new();
        for sequence in sequences {
            let padded = padded(sequence, order, vocabulary, end);
            for window in padded.windows(order) {
                *highest.entry(key(window)).or_insert(0u32) += 1;
            }
        }
        let mut orders = vec![highest];
        // The count of a shorter n-gram is the number of different tokens before it.
        for _ in 1..order {
            let mut shorter = HashMap::new();
            let n = order - orders.len();
            for gram in orders.last().into_iter().flat_map(HashMap::keys) {
                *shorter.entry(gram & ones(n)).or_insert(0u32) += 1;
            }
            orders.push(shorter);
        }
        orders.reverse();
        Self { vocabulary, orders: orders.into_iter().map(Order::new).collect(), end }
    }

    /// The order.
    pub(crate) fn order(&self) -> usize {
        self.orders.len()
    }

    /// `log p(token | context)` in nats; of a context no more than the last tokens are looked at.
    pub(crate) fn log_prob(&self, context: &[u32], token: u32) -> f64 {
        let context = &context[context.len().saturating_sub(self.order() - 1)..];
        let mut p = 1.0 / self.vocabulary as f64;
        for (n, order) in self.orders.iter().enumerate().take(context.len() + 1) {
            p = order.interpolate(&context[context.len() - n..], token, p);
        }
        p.ln()
    }

    /// `log p` in nats of a text: its tokens, and its end if `ends`. A text that `begins` is known to have nothing before
    /// it; another has an unknown past, and its first tokens are judged by shorter n-grams.
    pub(crate) fn log_prob_of(&self, tokens: &[u32], begins: bool, ends: bool) -> f64 {
        let past = if begins && self.end.is_some() { self.order() - 1 } else { 0 };
        let mut text = vec![self.start(); past];
        text.extend_from_slice(tokens);
        text.extend(self.end.filter(|_| ends));
        (past..text.len()).map(|at| self.log_prob(&text[..at], text[at])).sum()
    }

    /// What stands before the first token of a text.
    fn start(&self) -> u32 {
        self.vocabulary as u32
    }
}

fn padded(sequence: &[u32], order: usize, vocabulary: usize, end: Option<u32>) -> Vec<u32> {
    let mut padded = match end {
        Some(_) => vec![vocabulary as u32; order - 1],
        None => Vec::new(),
    };
    padded.extend_from_slice(sequence);
    padded.extend(end);
    padded
}

/// Up to four tokens as one number, the last one in the lowest bits. Each counts from 1, so that lengths differ too.
fn key(tokens: &[u32]) -> u128 {
    tokens.iter().fold(0, |key, token| (key << 32) | u128::from(token.wrapping_add(1)))
}

/// A mask of the last `n` tokens.
fn ones(n: usize) -> u128 {
    if n >= MOST { u128::MAX } else { (1 << (32 * n)) - 1 }
}

impl Order {
    fn new(counts: HashMap<u128, u32>) -> Self {
        let mut contexts: HashMap<u128, Context> = HashMap::new();
        let mut of_counts = [0u64; 4];
        for (gram, count) in &counts {
            let context = contexts.entry(gram >> 32).or_default();
            context.total += u64::from(*count);
            context.kinds[kind(*count)] += 1;
            if let Some(n) = of_counts.get_mut((*count as usize).saturating_sub(1)) {
                *n += 1;
            }
        }
        Self { counts, contexts, discounts: discounts(of_counts.map(|n| n as f64)) }
    }

    fn interpolate(&self, context: &[u32], token: u32, lower: f64) -> f64 {
        let before = key(context);
        let Some(known) = self.contexts.get(&before).filter(|c| c.total > 0) else { return lower };
        let total = known.total as f64;
        let count = self.counts.get(&((before << 32) | key(&[token]))).copied().unwrap_or(0);
        let kept = if count == 0 { 0.0 } else { f64::from(count) - self.discounts[kind(count)] };
        let freed: f64 = known.kinds.iter().zip(self.discounts).map(|(n, d)| f64::from(*n) * d).sum();
        kept / total + freed / total * lower
    }
}

fn kind(count: u32) -> usize {
    (count.clamp(1, 3) - 1) as usize
}

/// Discounts from the numbers of n-grams that were seen one, two, three and four times (Chen and Goodman 1998, equation 17).
/// Where such are missing, as in tiny corpora, the estimate is kept between 0 and the count.
fn discounts(n: [f64; 4]) -> [f64; 3] {
    let y = if n[0] + n[1] > 0.0 { n[0] / (n[0] + 2.0 * n[1]) } else { 0.5 };
    let discount = |i: usize| {
        let ratio = if n[i] > 0.0 { n[i + 1] / n[i] } else { 0.0 };
        let count = (i + 1) as f64;
        (count - (count + 1.0) * y * ratio).clamp(0.05 * count, 0.95 * count)
    };
    [discount(0), discount(1), discount(2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Rng;

    /// A chain in which each token is the one before plus 0 or 1.
    fn corpus(seed: u64, texts: usize) -> Vec<Vec<u32>> {
        let mut rng = Rng::new(seed);
        let text = |rng: &mut Rng| {
            let mut at = rng.below(7) as u32;
            (0..5 + rng.below(10))
                .map(|_| {
                    at = (at + rng.below(2) as u32) % 7 + 1;
                    at
                })
                .collect()
        };
        (0..texts).map(|_| text(&mut rng)).collect()
    }

    fn fit(order: usize, texts: &[Vec<u32>]) -> NgramModel {
        NgramModel::fit(order, 10, texts.iter().map(Vec::as_slice), Some(0))
    }

    #[test]
    fn probabilities_sum_to_one_over_the_vocabulary_in_every_context() {
        for texts in [corpus(1, 40), corpus(2, 1), vec![]] {
            for order in 1..=4 {
                let model = fit(order, &texts);
                for context in
                    [&[][..], &[1], &[2, 3], &[3, 3, 4], &[9, 9, 9], &[10, 10, 10], &[10, 1, 2], &[1, 2, 3, 4]]
                {
                    let p: Vec<f64> = (0..10).map(|t| model.log_prob(context, t).exp()).collect();
                    let total: f64 = p.iter().sum();
                    assert!((total - 1.0).abs() < 1e-12, "{order} {context:?}: {total}");
                    assert!(p.iter().all(|p| *p > 0.0));
                }
            }
        }
    }

    #[test]
    fn longer_contexts_help_where_there_is_something_to_know() {
        let (train, test) = (corpus(1, 500), corpus(2, 100));
        let nats = |order| {
            let model = fit(order, &train);
            let tokens: usize = test.iter().map(|t| t.len() + 1).sum();
            -test.iter().map(|t| model.log_prob_of(t, true, true)).sum::<f64>() / tokens as f64
        };
        let (one, two, three) = (nats(1), nats(2), nats(3));
        assert!(two < one - 0.8, "{one} {two}");
        // The chain has no memory beyond one token: no more is to be gained, and little is lost.
        assert!(three < two + 0.06, "{two} {three}");
        // Without a memory of the length: 2 nats for the first token, ln 2 for each of 8.5 more, 3.3 for the end.
        assert!((two - (2.0 + 8.5 * 2f64.ln() + 3.3) / 10.5).abs() < 0.05, "{two}");
    }

    #[test]
    fn a_small_corpus_gives_the_numbers_that_the_formulas_give() {
        // Unigram counts 1, 2, 3, 4 of four tokens: n1 = n2 = n3 = n4 = 1, Y = 1/3, D = 1/3, 1, 3 - 4/3.
        let text: Vec<u32> = [(1, 1), (2, 2), (3, 3), (4, 4)].iter().flat_map(|(t, n)| vec![*t; *n]).collect();
        let model = NgramModel::fit(1, 5, [text.as_slice()], None);
        let freed = (1.0 / 3.0 + 1.0 + 2.0 * 5.0 / 3.0) / 10.0;
        let expected = [freed / 5.0, (1.0 - 1.0 / 3.0) / 10.0 + freed / 5.0, 1.0 / 10.0 + freed / 5.0];
        for (token, p) in expected.iter().enumerate() {
            assert!((model.log_prob(&[], token as u32).exp() - p).abs() < 1e-12, "{token}");
        }
    }

    #[test]
    fn a_text_with_an_unknown_past_is_judged_by_shorter_contexts() {
        let model = fit(3, &corpus(1, 50));
        let by_hand = model.log_prob(&[], 3) + model.log_prob(&[3], 4) + model.log_prob(&[3, 4], 5);
        assert!((model.log_prob_of(&[3, 4, 5], false, false) - by_hand).abs() < 1e-12);
        let ended = model.log_prob_of(&[3], true, true);
        let by_hand = model.log_prob(&[10, 10], 3) + model.log_prob(&[10, 3], 0);
        assert!((ended - by_hand).abs() < 1e-12);
    }
}
