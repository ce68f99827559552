//! Symmetric matrices in `f64`: as large as a feature vector is long.

/// A symmetric matrix by its rows.
pub(crate) type Matrix = Vec<Vec<f64>>;

/// The eigenvalues of a symmetric matrix and its eigenvectors as columns, by Jacobi's rotations (Golub and Van Loan,
/// "Matrix computations", section 8.5).
pub(crate) fn eigen(matrix: &Matrix) -> (Vec<f64>, Matrix) {
    let n = matrix.len();
    let mut a = matrix.clone();
    let mut vectors: Matrix = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let scale: f64 = a.iter().flatten().map(|x| x * x).sum();
    // Convergence is quadratic: a dozen sweeps are plenty, the bound is there for values that are not finite.
    for _ in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if off <= 1e-30 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] != 0.0 {
                    rotate(&mut a, &mut vectors, p, q);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}

/// The rotation of the plane of `p` and `q` that makes `a[p][q]` zero.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let tan = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cos = 1.0 / (tan * tan + 1.0).sqrt();
    let sin = tan * cos;
    for row in a.iter_mut().chain(vectors.iter_mut()) {
        let (x, y) = (row[p], row[q]);
        (row[p], row[q]) = (cos * x - sin * y, sin * x + cos * y);
    }
    let (above, below) = a.split_at_mut(q);
    for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

/// The square root of a symmetric matrix without negative eigenvalues; what rounding makes negative counts as zero.
pub(crate) fn square_root(matrix: &Matrix) -> Matrix {
    let (values, vectors) = eigen(matrix);
    let roots: Vec<f64> = values.iter().map(|v| v.max(0.0).sqrt()).collect();
    let scaled: Matrix = vectors.iter().map(|row| row.iter().zip(&roots).map(|(v, r)| v * r).collect()).collect();
    scaled.iter().map(|row| vectors.iter().map(|other| dot(row, other)).collect()).collect()
}

/// `a · b` for a symmetric `b`.
pub(crate) fn product(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().map(|row| b.iter().map(|column| dot(row, column)).collect()).collect()
}

pub(crate) fn trace(matrix: &Matrix) -> f64 {
    matrix.iter().enumerate().map(|(i, row)| row[i]).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Rng;

    fn random(n: usize, rank: usize, seed: u64) -> Matrix {
        let mut rng = Rng::new(seed);
        let factors: Matrix = (0..n).map(|_| (0..rank).map(|_| rng.normal()).collect()).collect();
        product(&factors, &factors)
    }

    fn off(a: &Matrix, b: &Matrix) -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn eigenvectors_are_orthonormal_and_give_the_matrix_back() {
        for (n, rank) in [(1, 1), (2, 2), (7, 7), (40, 40), (40, 5)] {
            let a = random(n, rank, 3);
            let (values, vectors) = eigen(&a);
            let scaled: Matrix =
                vectors.iter().map(|row| row.iter().zip(&values).map(|(v, x)| v * x).collect()).collect();
            assert!(off(&product(&scaled, &vectors), &a) < 1e-11 * trace(&a), "{n} {rank}");
            let identity: Matrix = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
            assert!(off(&product(&vectors, &vectors), &identity) < 1e-12, "{n} {rank}");
        }
        let (mut values, _) = eigen(&vec![vec![2.0, 1.0], vec![1.0, 2.0]]);
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14, "{values:?}");
    }

    #[test]
    fn the_square_of_a_root_is_the_matrix_even_without_full_rank() {
        for rank in [3, 12] {
            let a = random(12, rank, 5);
            let root = square_root(&a);
            assert!(off(&product(&root, &root), &a) < 1e-10 * trace(&a), "{rank}");
        }
    }
}
