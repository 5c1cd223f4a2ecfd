//! bf16 kernels, native where the processor has their instructions, emulated where it does not.

use super::super::microkernel::ACC_CHAIN;
use super::super::{DEPTH_BLOCK, Gemm, MatrixMut};
use super::pack::DEPTHS;
use super::*;
use crate::random::Stream;
use half::bf16;
use proptest::prelude::*;

const KERNELS: [(Isa, Kernel); 2] = [(Isa::Avx512Bf16, Kernel::Avx512), (Isa::Amx, Kernel::Amx)];

/// True if a kernel can run here, natively or emulated.
fn runs(isa: Isa) -> bool {
    #[cfg(target_os = "linux")]
    if std::is_x86_feature_detected!("avx2") {
        emulator::install();
        return true;
    }
    isa <= Isa::of_processor()
}

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, "bf16 kernels", 0, 0);
    (0..count).map(|_| stream.normal() as f32).collect()
}

/// Memory layout of an operand: by rows or by columns, some elements more than their length apart.
#[derive(Debug, Clone, Copy)]
struct MatrixLayout {
    transposed: bool,
    gap: usize,
    /// Elements from one column (or row) to the next.
    stretch: usize,
}

impl MatrixLayout {
    const ROW_MAJOR: Self = Self { transposed: false, gap: 0, stretch: 1 };
    const TRANSPOSED: Self = Self { transposed: true, gap: 0, stretch: 1 };

    fn elements(self, rows: usize, columns: usize) -> usize {
        let (lines, length) = if self.transposed { (columns, rows) } else { (rows, columns) };
        lines * (length * self.stretch + self.gap)
    }

    fn matrix(self, data: &[f32], rows: usize, columns: usize) -> Matrix<'_, f32> {
        let (lines, length) = if self.transposed { (columns, rows) } else { (rows, columns) };
        let matrix =
            Matrix::new(data, lines, length, length * self.stretch + self.gap, self.stretch);
        if self.transposed { matrix.t() } else { matrix }
    }
}

/// Rounding by `half`, not by our own code.
fn rounded(x: f32) -> f64 {
    bf16::from_f32(x).to_f64()
}

/// Error bound of f32 sums, relative to the sum of magnitudes: with n roundings on the way of a product into the sum,
/// each of which is off by a share of 2^-24 at most, n u / (1 - n u) for u = 2^-24 (gamma_n of Higham 2002, "Accuracy
/// and Stability of Numerical Algorithms"). A product of two bf16 has 16 bits and is exact.
fn bound(roundings: usize) -> f64 {
    let off = roundings as f64 * 2f64.powi(-24);
    off / (1.0 - off)
}

/// Roundings on the way of a product: AMX adds the 16 even or odd products of a tile, both sums together, and those
/// of all tiles down the depth. AVX-512 adds a block one after the other, and the sums of all blocks.
fn roundings(kernel: Kernel, depth: usize) -> usize {
    match kernel {
        Kernel::Amx => 16 + 1 + depth.div_ceil(DEPTHS),
        Kernel::Avx512 => {
            let block = kernel.depth_block() * DEPTHS;
            depth.next_multiple_of(2).min(block) + depth.div_ceil(block)
        }
    }
}

/// Roundings of the f32 kernel: a chain, the chains of a block of the depth, and the sums of all blocks.
fn plain_roundings(depth: usize) -> usize {
    depth.min(ACC_CHAIN) + depth.min(DEPTH_BLOCK).div_ceil(ACC_CHAIN) + depth.div_ceil(DEPTH_BLOCK)
}

/// Both kernels against the exact product of the rounded operands, and against the f32 kernel.
fn check([m, k, n]: [usize; 3], layouts: [MatrixLayout; 2], add: bool) {
    let (a, b) = (normal(layouts[0].elements(m, k), 1), normal(layouts[1].elements(k, n), 2));
    let (lhs, rhs) = (layouts[0].matrix(&a, m, k), layouts[1].matrix(&b, k, n));
    let started = normal(m * n, 3);
    // Some elements are replaced at the end. Nothing is added: that would round once more.
    let replaced = |row: usize, column: usize| {
        (row + column).is_multiple_of(97).then_some((row * 3 + column) as f32)
    };
    let product = |isa| {
        let mut out = if add { started.clone() } else { vec![f32::NAN; m * n] };
        let epilogue = |row: usize, column: usize, piece: &mut [f32]| {
            for (i, x) in piece.iter_mut().enumerate() {
                assert!(!x.is_nan(), "finished before it was written");
                *x = replaced(row, column + i).unwrap_or(*x);
            }
        };
        let to = &mut MatrixMut::dense(&mut out, m, n);
        Gemm {
            isa,
            lhs,
            rhs,
            second: None,
            precision: Precision::Bf16,
            epilogue: Some(&epilogue),
            rows_apart: true,
        }
        .write(to, add);
        out
    };
    let fallback = product(Isa::Avx2.min(Isa::of_processor()));
    for (isa, kernel) in KERNELS.into_iter().filter(|&(isa, _)| runs(isa)) {
        for (at, (found, plain)) in product(isa).into_iter().zip(&fallback).enumerate() {
            let (row, column) = (at / n, at % n);
            let place = || format!("{isa:?} {m}x{k}x{n} {layouts:?} {add} at {row}, {column}");
            if let Some(replaced) = replaced(row, column) {
                assert_eq!(found, replaced, "{}", place());
                continue;
            }
            let term = |p| rounded(lhs.element(row, p)) * rounded(rhs.element(p, column));
            let start = if add { f64::from(started[at]) } else { 0.0 };
            let want = (0..k).map(term).sum::<f64>() + start;
            let size = (0..k).map(|p| term(p).abs()).sum::<f64>() + start.abs();
            // The existing output is one rounding more.
            let own = bound(roundings(kernel, k) + 1) * size;
            let off = (f64::from(found) - want).abs();
            assert!(off <= own, "{}: off by {off:e} of {own:e}", place());
            let apart = f64::from((found - plain).abs());
            let both = own + bound(plain_roundings(k) + 1) * size;
            assert!(apart <= both, "{}: {apart:e} from the loops, of {both:e}", place());
        }
    }
}

#[test]
fn sizes_at_the_edges_of_tiles_and_blocks() {
    for (sizes, add) in [
        ([1, 1, 1], false),
        ([32, 32, 32], true),
        ([33, 33, 33], true),
        ([8, 384, 64], false),
        ([49, 385, 65], true),
        ([6, 1537, 17], false),
        ([103, 9, 200], true),
        ([24, 40, 31], false),
    ] {
        for layouts in [
            [MatrixLayout::ROW_MAJOR; 2],
            [MatrixLayout::ROW_MAJOR, MatrixLayout::TRANSPOSED],
            [MatrixLayout::TRANSPOSED, MatrixLayout::ROW_MAJOR],
        ] {
            check(sizes, layouts, add);
        }
    }
}

/// Results as the instructions define them, to the bit: order of sums, subnormal numbers, infinities.
#[test]
fn sums_in_the_order_of_the_manual() {
    let (m, k, n) = (17, 64, 18);
    let (mut a, mut b) = (normal(m * k, 4), normal(k * n, 5));
    // Below the smallest normal number: an operand, products, and sums of them.
    a[k] = 1e-39;
    a[2 * k..3 * k].fill(1e-20);
    b.iter_mut().step_by(n).for_each(|b| *b *= 3e-19);
    b.iter_mut().skip(1).step_by(n).for_each(|b| *b *= 1e-19);
    (a[3 * k + 5], a[4 * k + 7]) = (f32::INFINITY, f32::NAN);
    let value = |x: f32| bf16::from_f32(x).to_f32();
    let flushed = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    let step =
        |sum: f32, a: f32, b: f32| flushed(flushed(value(a)).mul_add(flushed(value(b)), sum));
    let mut flushes = 0;
    for (isa, kernel) in KERNELS.into_iter().filter(|&(isa, _)| runs(isa)) {
        let mut out = vec![0f32; m * n];
        let (lhs, rhs) = (Matrix::dense(&a, m, k), Matrix::dense(&b, k, n));
        let to = &mut MatrixMut::dense(&mut out, m, n);
        Gemm {
            isa,
            lhs,
            rhs,
            second: None,
            precision: Precision::Bf16,
            epilogue: None,
            rows_apart: false,
        }
        .write(to, false);
        for (at, found) in out.into_iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let add = |sum, p: usize| step(sum, a[i * k + p], b[p * n + j]);
            let want = match kernel {
                Kernel::Avx512 => (0..k / 2).fold(0.0, |sum, p| add(add(sum, 2 * p + 1), 2 * p)),
                Kernel::Amx => (0..k).step_by(32).fold(0.0, |sum, first| {
                    let half = |odd| (first + odd..first + 32).step_by(2).fold(0.0, add);
                    flushed(sum + flushed(half(0) + half(1)))
                }),
            };
            let exact: f64 = (0..k).map(|p| rounded(a[i * k + p]) * rounded(b[p * n + j])).sum();
            flushes += usize::from(want == 0.0 && exact != 0.0);
            let same = want.to_bits() == found.to_bits() || (want.is_nan() && found.is_nan());
            assert!(same, "{isa:?} at {i}, {j}: {found:e}, not {want:e}");
        }
    }
    assert!(flushes > 0 || !runs(Isa::Amx), "no sum was subnormal");
}

/// The emulator runs where the processor lacks an instruction, and only there.
#[test]
#[cfg(target_os = "linux")]
fn instructions_are_emulated_where_there_are_none() {
    for (isa, _) in KERNELS.into_iter().filter(|&(isa, _)| runs(isa)) {
        let before = emulator::emulated();
        let (a, mut out) = ([1f32; 4], [0f32; 4]);
        let a = Matrix::dense(&a, 2, 2);
        let to = &mut MatrixMut::dense(&mut out, 2, 2);
        Gemm {
            isa,
            lhs: a,
            rhs: a,
            second: None,
            precision: Precision::Bf16,
            epilogue: None,
            rows_apart: false,
        }
        .write(to, false);
        assert_eq!(out, [2.0; 4]);
        assert_eq!(emulator::emulated() > before, isa > Isa::of_processor(), "{isa:?}");
    }
}

/// f64 is never rounded, f32 only where that is asked for.
#[test]
fn kernels_are_for_bf16_alone() {
    for isa in Isa::ALL {
        assert_eq!(Kernel::of(isa, Precision::F32), None);
        assert_eq!(Kernel::of(isa, Precision::Bf16).is_some(), isa > Isa::Avx512);
    }
    assert!(Matrix::dense(&[1f64], 1, 1).as_f32().is_none());
}

fn layouts() -> impl Strategy<Value = MatrixLayout> {
    (any::<bool>(), prop_oneof![Just(0), 1usize..20], prop_oneof![4 => Just(1), 1 => 2usize..4])
        .prop_map(|(transposed, gap, stretch)| MatrixLayout { transposed, gap, stretch })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sizes_and_orders(
        m in 1usize..120, k in 1usize..90, n in 1usize..150,
        left in layouts(), right in layouts(), add in any::<bool>(),
    ) {
        check([m, k, n], [left, right], add);
    }
}
