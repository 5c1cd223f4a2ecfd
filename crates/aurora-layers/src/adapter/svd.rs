//! Truncated SVD by subspace iteration from a random start.

use crate::Result;
use aurora_kernels::random::Stream;
use candle_core::{DType, Device, Tensor};

/// Oversampling: directions iterated beyond the wanted ones, so that those converge sooner.
const BEYOND: usize = 8;
/// Maximum number of iterations. Where singular values lie close together the last directions may still rotate among
/// themselves.
const ROUNDS: usize = 60;
/// Tolerance: iteration ends when a round adds less than this share to the sum of the wanted squares.
const ENOUGH: f64 = 1e-13;

/// Largest singular values of a matrix and their vectors, `W ~ left diag(values) right`, in f64.
pub(crate) struct Largest {
    pub(crate) left: Tensor, // (rows, count)
    pub(crate) values: Vec<f64>,
    pub(crate) right: Tensor, // (count, columns)
}

/// Truncated SVD: the `count` largest singular values of `matrix` (rows, columns), largest first; `count` is at most
/// the smaller side. Depends on the matrix and the stream alone.
pub(crate) fn largest(matrix: &Tensor, count: usize, stream: &mut Stream) -> Result<Largest> {
    // On the CPU wherever the matrix is: orthogonalization is sequential.
    let device = matrix.device().clone();
    let matrix = matrix.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous()?;
    let (rows, columns) = matrix.dims2()?;
    let width = (count + BEYOND).min(rows).min(columns);
    let transposed = matrix.t()?.contiguous()?;
    let random = stream.normal_tensor((width, columns), 1.0)?.to_dtype(DType::F64)?;
    let mut right = orthonormal(&random)?; // rows: directions of the input
    let mut before = 0.0;
    let mut round = 0;
    loop {
        let left = orthonormal(&right.matmul(&transposed)?)?; // (width, rows)
        let seen = left.matmul(&matrix)?; // (width, columns), the matrix as these directions see it
        let (squares, turns) = eigen(seen.matmul(&seen.t()?)?.to_vec2::<f64>()?);
        let sum: f64 = squares.iter().take(count).sum();
        round += 1;
        if round == ROUNDS || sum - before <= ENOUGH * sum {
            let turns: Vec<Vec<f64>> = turns.into_iter().take(count).collect();
            let turns = Tensor::new(turns, matrix.device())?; // (count, width)
            let values: Vec<f64> =
                squares.iter().take(count).map(|square| square.max(0.0).sqrt()).collect();
            let inverse = values.iter().map(|&value| if value > 0.0 { value.recip() } else { 0.0 });
            let inverse =
                Tensor::from_vec(inverse.collect::<Vec<_>>(), (count, 1), matrix.device())?;
            return Ok(Largest {
                left: turns.matmul(&left)?.t()?.contiguous()?.to_device(&device)?,
                right: turns.matmul(&seen)?.broadcast_mul(&inverse)?.to_device(&device)?,
                values,
            });
        }
        before = sum;
        right = orthonormal(&seen)?;
    }
}

/// Orthonormal basis of the rows by Gram-Schmidt, run twice, because one pass leaves rounding. A row that is dependent
/// on those above it becomes zero.
fn orthonormal(rows: &Tensor) -> Result<Tensor> {
    let mut done: Vec<Vec<f64>> = Vec::new();
    for mut row in rows.to_vec2::<f64>()? {
        let start = dot(&row, &row).sqrt();
        for _ in 0..2 {
            for other in &done {
                let share = dot(&row, other);
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
            }
        }
        let length = dot(&row, &row).sqrt();
        let factor = if length > 1e-12 * start { length.recip() } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
        done.push(row);
    }
    Ok(Tensor::new(done, rows.device())?)
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Eigendecomposition of a symmetric matrix by Jacobi rotations: values, largest first, and vectors as rows.
fn eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let unit = |at: usize| (0..size).map(|i| if i == at { 1.0 } else { 0.0 }).collect();
    let mut vectors: Vec<Vec<f64>> = (0..size).map(unit).collect();
    for _ in 0..64 {
        let square = |i: usize, j: usize| matrix[i][j] * matrix[i][j];
        let beside: f64 =
            (0..size).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| square(i, j)).sum();
        let diagonal: f64 = (0..size).map(|i| square(i, i)).sum();
        if beside <= 1e-32 * diagonal {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut matrix, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b][b].total_cmp(&matrix[a][a]));
    let values = order.iter().map(|&i| matrix[i][i]).collect();
    (values, order.into_iter().map(|i| std::mem::take(&mut vectors[i])).collect())
}

/// Jacobi rotation of directions p and q that makes the element between them zero.
fn rotate(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if matrix[p][q] == 0.0 {
        return;
    }
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = (tangent * tangent + 1.0).sqrt().recip();
    let sine = tangent * cosine;
    let turn = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
    for row in matrix.iter_mut() {
        (row[p], row[q]) = turn(row[p], row[q]);
    }
    for rows in [matrix, vectors] {
        for i in 0..rows[p].len() {
            (rows[p][i], rows[q][i]) = turn(rows[p][i], rows[q][i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All singular values, by one-sided Jacobi rotations of the columns: an independent method, without squaring.
    fn all_singular_values(matrix: &[Vec<f64>]) -> Vec<f64> {
        let columns = matrix[0].len();
        let mut by_column: Vec<Vec<f64>> =
            (0..columns).map(|j| matrix.iter().map(|row| row[j]).collect()).collect();
        for _ in 0..60 {
            for p in 0..columns {
                for q in p + 1..columns {
                    let (a, b) =
                        (dot(&by_column[p], &by_column[p]), dot(&by_column[q], &by_column[q]));
                    let between = dot(&by_column[p], &by_column[q]);
                    if between.abs() <= 1e-15 * (a * b).sqrt() {
                        continue;
                    }
                    let zeta = (b - a) / (2.0 * between);
                    let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    let c = (1.0 + t * t).sqrt().recip();
                    let (first, second) = by_column.split_at_mut(q);
                    for (x, y) in first[p].iter_mut().zip(&mut second[0]) {
                        (*x, *y) = (c * *x - c * t * *y, c * t * *x + c * *y);
                    }
                }
            }
        }
        let mut values: Vec<f64> =
            by_column.iter().map(|column| dot(column, column).sqrt()).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    }

    fn normal(seed: u64, rows: usize, columns: usize) -> Tensor {
        let tensor = Stream::new(seed, "matrix", 0, 0).normal_tensor((rows, columns), 1.0).unwrap();
        tensor.to_dtype(DType::F64).unwrap()
    }

    fn norm(tensor: &Tensor) -> f64 {
        tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
    }

    /// Singular values agree with the full decomposition, and the residual is the smallest possible.
    fn check(matrix: &Tensor, count: usize, seed: u64) {
        let found = largest(matrix, count, &mut Stream::new(seed, "svd", 0, 0)).unwrap();
        let all = all_singular_values(&matrix.to_vec2::<f64>().unwrap());
        for (found, wanted) in found.values.iter().zip(&all) {
            assert!((found - wanted).abs() < 1e-7 * all[0].max(1e-300), "{found} {wanted}");
        }
        let values = Tensor::new(found.values.clone(), &Device::Cpu).unwrap();
        let rebuilt = found.left.broadcast_mul(&values).unwrap().matmul(&found.right).unwrap();
        let left_over = norm(&(matrix - rebuilt).unwrap());
        let wanted = all.iter().skip(count).map(|value| value * value).sum::<f64>().sqrt();
        assert!((left_over - wanted).abs() < 1e-6 * norm(matrix), "{left_over} {wanted}");
    }

    #[test]
    fn a_spectrum_that_falls_off() {
        // Values 1, 1/2, 1/4, .. between random directions.
        let (left, right) =
            (orthonormal(&normal(1, 40, 60)).unwrap(), orthonormal(&normal(2, 40, 50)).unwrap());
        let values: Vec<f64> = (0..40).map(|i| 0.5f64.powi(i)).collect();
        let values = Tensor::from_vec(values, (40, 1), &Device::Cpu).unwrap();
        let matrix = left.t().unwrap().matmul(&right.broadcast_mul(&values).unwrap()).unwrap();
        check(&matrix, 6, 3);
        let found = largest(&matrix, 6, &mut Stream::new(3, "svd", 0, 0)).unwrap();
        for (index, value) in found.values.iter().enumerate() {
            assert!((value - 0.5f64.powi(index as i32)).abs() < 1e-12, "{index}: {value}");
        }
    }

    #[test]
    fn a_flat_spectrum() {
        check(&normal(4, 48, 32), 4, 5);
    }

    #[test]
    fn a_matrix_of_zeros_and_one_of_small_rank() {
        let zeros = Tensor::zeros((5, 4), DType::F64, &Device::Cpu).unwrap();
        let found = largest(&zeros, 2, &mut Stream::new(1, "svd", 0, 0)).unwrap();
        assert_eq!(found.values, [0.0, 0.0]);
        let low = normal(1, 12, 2).matmul(&normal(2, 2, 9)).unwrap();
        let found = largest(&low, 4, &mut Stream::new(1, "svd", 0, 0)).unwrap();
        assert!(found.values[2] < 1e-6 * found.values[0], "{:?}", found.values);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn of_small_matrices(seed: u64, rows in 1usize..12, columns in 1usize..12, count in 1usize..6) {
            check(&normal(seed, rows, columns), count.min(rows).min(columns), seed ^ 1);
        }
    }
}
