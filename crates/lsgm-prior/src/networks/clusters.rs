//! Clusters of points by Lloyd's algorithm.

use lsgm_core::Rng;

/// Clusters of points in a space of `dim` dimensions.
pub(super) struct Clusters {
    /// The mean of each cluster, one after another.
    pub(super) means: Vec<f64>,
    /// How many points are nearest to each.
    pub(super) counts: Vec<usize>,
    /// Variance of each cluster in each dimension: that of its points around its mean, and the mean of their own. Empty
    /// clusters get the average of all.
    pub(super) variances: Vec<f64>,
}

/// `count` clusters of `points` (one after another), with starting points drawn far from each other in proportion to the
/// squared distance (Arthur and Vassilvitskii 2007, "k-means++") and `rounds` rounds of Lloyd's algorithm. With fewer
/// different points than clusters the rest stay empty, on top of others. `own` are variances of the points themselves.
pub(super) fn k_means(points: &[f64], own: &[f64], dim: usize, count: usize, rounds: usize, rng: &mut Rng) -> Clusters {
    let points: Vec<&[f64]> = points.chunks_exact(dim).collect();
    let mut means = spread_out(&points, count, rng);
    for _ in 0..rounds {
        let nearest: Vec<usize> = points.iter().map(|p| closest(p, &means, dim)).collect();
        move_to_centres(&points, &nearest, &mut means, dim);
    }
    let mut counts = vec![0; count];
    let mut variances = vec![0.0; count * dim];
    let mut average = vec![0.0; dim];
    for (point, own) in points.iter().zip(own.chunks_exact(dim)) {
        let cluster = closest(point, &means, dim);
        counts[cluster] += 1;
        for d in 0..dim {
            let variance = (point[d] - means[cluster * dim + d]).powi(2) + own[d];
            variances[cluster * dim + d] += variance;
            average[d] += variance / points.len() as f64;
        }
    }
    for (variances, &count) in variances.chunks_exact_mut(dim).zip(&counts) {
        match count {
            0 => variances.copy_from_slice(&average),
            n => variances.iter_mut().for_each(|v| *v /= n as f64),
        }
    }
    Clusters { means, counts, variances }
}

fn spread_out(points: &[&[f64]], count: usize, rng: &mut Rng) -> Vec<f64> {
    let mut chosen = points[rng.below(points.len())];
    let mut means = chosen.to_vec();
    let mut distances = vec![f64::INFINITY; points.len()];
    for _ in 1..count {
        distances.iter_mut().zip(points).for_each(|(d, p)| *d = d.min(squared_distance(p, chosen)));
        let total: f64 = distances.iter().sum();
        let mut left = rng.uniform() * total;
        let next = distances.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        chosen = points[next.unwrap_or(0)];
        means.extend_from_slice(chosen);
    }
    means
}

fn closest(point: &[f64], means: &[f64], dim: usize) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (i, mean) in means.chunks_exact(dim).enumerate() {
        let distance = squared_distance(point, mean);
        if distance < best.0 {
            best = (distance, i);
        }
    }
    best.1
}

/// Clusters without a point stay where they are.
fn move_to_centres(points: &[&[f64]], nearest: &[usize], means: &mut [f64], dim: usize) {
    let mut sums = vec![0.0; means.len()];
    let mut counts = vec![0usize; means.len() / dim];
    for (point, &cluster) in points.iter().zip(nearest) {
        counts[cluster] += 1;
        sums[cluster * dim..][..dim].iter_mut().zip(*point).for_each(|(s, p)| *s += p);
    }
    for ((mean, sum), &count) in means.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(&counts) {
        if count > 0 {
            mean.iter_mut().zip(sum).for_each(|(m, s)| *m = s / count as f64);
        }
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clump_of_points_becomes_a_cluster() {
        let mut rng = Rng::new(1);
        let centres = [[-3.0, 0.0], [0.0, 4.0], [5.0, 5.0]];
        let mut points = Vec::new();
        for i in 0..300 {
            let centre = centres[if i < 10 { 2 } else { i % 2 }];
            points.extend(centre.map(|c| c + 0.1 * rng.normal()));
        }
        let found = k_means(&points, &vec![0.5; points.len()], 2, 3, 5, &mut rng);
        for centre in centres {
            assert!(found.means.chunks(2).any(|mean| squared_distance(mean, &centre) < 0.02), "{centre:?}");
        }
        assert_eq!(found.counts.iter().sum::<usize>(), 300);
        assert!(found.counts.contains(&10));
        assert!(found.variances.iter().all(|v| (0.502..0.52).contains(v)), "{:?}", found.variances);
    }

    #[test]
    fn more_clusters_than_points_are_no_trouble() {
        let found = k_means(&[1.0, 1.0, 2.0], &[0.1, 0.3, 0.2], 1, 5, 3, &mut Rng::new(1));
        assert!(found.variances.iter().all(|v| (v - 0.2).abs() < 1e-12), "{:?}", found.variances);
        assert_eq!(found.counts.iter().sum::<usize>(), 3);
    }
}
