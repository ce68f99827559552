use lsgm_core::Rng;

/// The order in which training items are visited: a fresh permutation for every epoch, a pure function of the seed.
///
/// Batches run across the end of an epoch, so that every batch is full and every item is visited once an epoch.
#[derive(Debug)]
pub(crate) struct Order {
    rng: Rng,
    items: usize,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    pub(crate) fn new(rng: &Rng, items: usize) -> Self {
        Self { rng: rng.fork("order"), items, epoch: None }
    }

    /// The indices of the batch that starts after `visited` items.
    pub(crate) fn batch(&mut self, visited: u64, size: usize) -> Vec<usize> {
        (visited..visited + size as u64).map(|i| self.index(i)).collect()
    }

    fn index(&mut self, visited: u64) -> usize {
        let (epoch, position) = (visited / self.items as u64, (visited % self.items as u64) as usize);
        if self.epoch.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let mut permutation: Vec<usize> = (0..self.items).collect();
            self.rng.fork(&epoch.to_string()).shuffle(&mut permutation);
            self.epoch = Some((epoch, permutation));
        }
        self.epoch.as_ref().map_or(0, |(_, p)| p[position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_once_an_epoch_and_the_same_after_a_jump() {
        let rng = Rng::new(1);
        let mut order = Order::new(&rng, 7);
        let all: Vec<usize> = (0..6).flat_map(|b| order.batch(b * 5, 5)).collect();
        for epoch in all[..28].chunks(7) {
            let mut seen = epoch.to_vec();
            seen.sort_unstable();
            assert_eq!(seen, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(all[..7], all[7..14]);
        assert_eq!(Order::new(&rng, 7).batch(15, 5), all[15..20]);
    }
}
