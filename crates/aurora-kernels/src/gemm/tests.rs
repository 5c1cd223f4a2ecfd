//! GEMM of any sizes and layouts, in both precisions.

use super::*;
use crate::random::Stream;
use half::bf16;
use proptest::prelude::*;

/// Matrix of numbers that f32 adds without rounding, so that any order gives the same sum.
fn whole(rows: usize, columns: usize, seed: usize) -> Vec<f64> {
    (0..rows * columns).map(|i| ((i * 7 + seed * 13) % 11) as f64 - 5.0).collect()
}

fn plain(lhs: &[f64], rhs: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let entry = |i: usize, j: usize| (0..k).map(|p| lhs[i * k + p] * rhs[p * n + j]).sum();
    (0..m * n).map(|at| entry(at / n.max(1), at % n.max(1))).collect()
}

fn transposed<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect()
}

fn check<T: Float>(sizes: [usize; 3], lhs_transposed: bool, rhs_transposed: bool, add: bool) {
    let [m, k, n] = sizes;
    let (a, b) = (whole(m, k, 1), whole(k, n, 2));
    let want = plain(&a, &b, sizes);
    let of = |values: &[f64]| values.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
    let (a, b) = (of(&a), of(&b));
    let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
    let lhs = if lhs_transposed { Matrix::dense(&a_t, k, m).t() } else { Matrix::dense(&a, m, k) };
    let rhs = if rhs_transposed { Matrix::dense(&b_t, n, k).t() } else { Matrix::dense(&b, k, n) };
    let epilogue = |row: usize, column: usize, piece: &mut [T]| {
        for (i, x) in piece.iter_mut().enumerate() {
            *x += T::from_f64((row * 2 + column + i) as f64);
        }
    };
    // Such numbers are exact in bf16.
    for precision in [Precision::F32, Precision::Bf16] {
        let mut got = vec![T::from_f64(3.0); m * n];
        gemm(&mut MatrixMut::dense(&mut got, m, n), add, lhs, rhs, precision, Some(&epilogue));
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            let start = if add { 3.0 } else { 0.0 };
            let want = want + start + (at / n * 2 + at % n) as f64;
            assert_eq!(
                got.to_f64(),
                want,
                "{sizes:?} {lhs_transposed} {rhs_transposed} {add} at {at}"
            );
        }
    }
}

#[test]
fn sizes_at_the_edges_of_blocks() {
    for sizes in
        [[1, 1, 1], [48, 768, 64], [49, 769, 65], [6, 1537, 17], [103, 9, 200], [5, 40, 31]]
    {
        check::<f32>(sizes, false, true, false);
        check::<f64>(sizes, true, false, true);
    }
}

/// Dual GEMM, each left operand by rows or by columns.
fn check_two<T: Float>([m, k, second, n]: [usize; 4], turns: [bool; 2]) {
    let of = |values: Vec<f64>| values.into_iter().map(T::from_f64).collect::<Vec<T>>();
    let left = [of(whole(m, k, 1)), of(whole(m, second, 3))];
    let right = [of(whole(k, n, 2)), of(whole(second, n, 4))];
    let by_columns = [transposed(&left[0], m, k), transposed(&left[1], m, second)];
    let factors = [0, 1].map(|at| {
        let depth = [k, second][at];
        let lhs = match turns[at] {
            true => Matrix::dense(&by_columns[at], depth, m).t(),
            false => Matrix::dense(&left[at], m, depth),
        };
        (lhs, Matrix::dense(&right[at], depth, n))
    });
    let epilogue = |row: usize, column: usize, piece: &mut [T]| {
        for (i, x) in piece.iter_mut().enumerate() {
            *x += T::from_f64((row * 2 + column + i) as f64);
        }
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let [mut want, mut got] = [(); 2].map(|()| vec![T::from_f64(3.0); m * n]);
        let out = &mut MatrixMut::dense(&mut want, m, n);
        gemm(out, false, factors[0].0, factors[0].1, precision, None);
        gemm(out, true, factors[1].0, factors[1].1, precision, Some(&epilogue));
        gemm_dual(&mut MatrixMut::dense(&mut got, m, n), factors, precision, Some(&epilogue));
        let [want, got] = [want, got].map(|v| v.into_iter().map(T::to_f64).collect::<Vec<f64>>());
        assert_eq!(got, want, "{m} {k} {second} {n} {turns:?} {precision:?}");
    }
}

#[test]
fn two_products_at_the_edges_of_blocks() {
    for sizes in [[49, 769, 64, 65], [103, 9, 16, 200], [12, 1537, 3, 33], [5, 0, 4, 31]] {
        for turns in [[false, false], [true, false], [false, true]] {
            check_two::<f32>(sizes, turns);
            check_two::<f64>(sizes, turns);
        }
    }
}

#[test]
fn a_large_transpose_in_strips() {
    let (rows, columns) = (531, 257);
    let values = ragged(rows * columns, 5);
    let of = Matrix::dense(&values, columns, rows).t();
    assert_eq!(of.to_row_major(), transposed(&values, columns, rows));
    // Every second row and column: nothing is dense.
    let sparse = Matrix::new(&values, 100, 40, 2, 1062);
    let want: Vec<f32> = (0..4000).map(|at| values[at / 40 * 2 + at % 40 * 1062]).collect();
    assert_eq!(sparse.to_row_major(), want);
}

/// Numbers with any mantissa.
fn ragged(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, "bf16 product", 0, 0);
    (0..count).map(|_| stream.normal() as f32).collect()
}

/// Rounding by `half`, not by our own code.
fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| bf16::from_f32(x).to_f64()).collect()
}

/// bf16 GEMM against the f64 product of the rounded operands. The rest is the rounding of f32 sums: at most 2^-24 of
/// the sum of magnitudes for each of k additions, of which far less is seen.
fn check_bf16(sizes: [usize; 3], lhs_transposed: bool, rhs_transposed: bool) {
    let [m, k, n] = sizes;
    let (a, b) = (ragged(m * k, 1), ragged(k * n, 2));
    let (wide_a, wide_b) = (rounded(&a), rounded(&b));
    let want = plain(&wide_a, &wide_b, sizes);
    let size = |values: &[f64]| values.iter().map(|x| x.abs()).collect::<Vec<f64>>();
    let sizes_of_terms = plain(&size(&wide_a), &size(&wide_b), sizes);
    let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
    let lhs = if lhs_transposed { Matrix::dense(&a_t, k, m).t() } else { Matrix::dense(&a, m, k) };
    let rhs = if rhs_transposed { Matrix::dense(&b_t, n, k).t() } else { Matrix::dense(&b, k, n) };
    let mut found = vec![0f32; m * n];
    let out = &mut MatrixMut::dense(&mut found, m, n);
    gemm(out, false, lhs, rhs, Precision::Bf16, None);
    for (at, (found, want)) in found.iter().zip(&want).enumerate() {
        let off = (f64::from(*found) - want).abs();
        let allowed = 1e-6 * sizes_of_terms[at];
        assert!(
            off <= allowed,
            "{sizes:?} {lhs_transposed} {rhs_transposed} at {at}: off by {off:e}"
        );
    }
    // A product of two bf16 is exact in f32 and sums have one order, so these make no difference.
    for isa in [Isa::Plain, Isa::Avx2, Isa::Avx512] {
        if isa <= Isa::of_processor() && Isa::in_use() <= Isa::Avx512 {
            let mut again = vec![0f32; m * n];
            let out = &mut MatrixMut::dense(&mut again, m, n);
            let precision = Precision::Bf16;
            Gemm { isa, lhs, rhs, second: None, precision, epilogue: None, rows_apart: true }
                .write(out, false);
            assert_eq!(again, found, "{sizes:?} {lhs_transposed} {rhs_transposed} {isa:?}");
        }
    }
}

#[test]
fn bf16_at_the_edges_of_blocks() {
    for sizes in
        [[1, 1, 1], [48, 768, 64], [49, 769, 65], [6, 1537, 17], [103, 9, 200], [5, 40, 31]]
    {
        for turns in [(false, true), (false, false), (true, false), (true, true)] {
            check_bf16(sizes, turns.0, turns.1);
        }
    }
}

/// Rounding a submatrix leaves its neighbors untouched.
#[test]
fn bf16_of_a_part_of_a_wider_matrix() {
    let (m, k, n, stride) = (7, 50, 33, 61);
    let (a, b) = (ragged(m * stride, 3), ragged(k * n, 4));
    let before = a.clone();
    let dense: Vec<f32> = a.chunks_exact(stride).flat_map(|row| &row[..k]).copied().collect();
    let product = |lhs: Matrix<'_, f32>| {
        let mut out = vec![0f32; m * n];
        let rhs = Matrix::dense(&b, k, n);
        let to = &mut MatrixMut::dense(&mut out, m, n);
        gemm(to, false, lhs, rhs, Precision::Bf16, None);
        out
    };
    assert_eq!(product(Matrix::new(&a, m, k, stride, 1)), product(Matrix::dense(&dense, m, k)));
    assert_eq!(a, before);
}

proptest! {
    #[test]
    fn bf16_of_any_sizes_and_orders(
        m in 0usize..70, k in 0usize..40, n in 0usize..80,
        lhs_transposed in any::<bool>(), rhs_transposed in any::<bool>(),
    ) {
        check_bf16([m, k, n], lhs_transposed, rhs_transposed);
    }

    #[test]
    fn two_of_any_sizes_and_orders(
        m in 0usize..70, k in 0usize..40, second in 0usize..20, n in 0usize..80,
        turns in any::<[bool; 2]>(),
    ) {
        check_two::<f32>([m, k, second, n], turns);
        check_two::<f64>([m, k, second, n], turns);
    }

    #[test]
    fn rows_of_any_transpose(rows in 0usize..90, columns in 0usize..90) {
        let values = ragged(rows * columns, 6);
        let of = Matrix::dense(&values, columns, rows).t();
        prop_assert_eq!(of.to_row_major(), transposed(&values, columns, rows));
    }

    #[test]
    fn any_sizes_and_orders(
        m in 0usize..70, k in 0usize..40, n in 0usize..80,
        lhs_transposed in any::<bool>(), rhs_transposed in any::<bool>(), add in any::<bool>(),
    ) {
        check::<f32>([m, k, n], lhs_transposed, rhs_transposed, add);
        check::<f64>([m, k, n], lhs_transposed, rhs_transposed, add);
    }
}
