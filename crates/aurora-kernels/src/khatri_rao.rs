//! Khatri-Rao product and contiguous transpose, which bring CP factors into the layout of
//! [`LowRank`](crate::LowRank).
//!
//! Every adapted linear layer needs its own in every step, so the cost of candle's general single-threaded loops (a
//! broadcast product, its reduction in the backward pass, a transpose) counts: on wide models as much as a tenth of
//! the matmuls.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::float::Float;
use crate::linear::strided;
use crate::multiversion::multiversion;
use crate::tape::{apply1, apply2};
use crate::view::{
    ROW_BLOCK, Rows, by_element, check_like, cpu, fill_uninit, reduce, tensor_from_vec,
};

const KHATRI_RAO: &str = "khatri_rao";
const TRANSPOSE_CONTIGUOUS: &str = "transpose_contiguous";

/// True if the loops of this file apply; otherwise candle's run.
fn is_cpu_float(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Khatri-Rao product (column-wise Kronecker product; Kolda and Bader 2009, "Tensor Decompositions and Applications")
/// of `scales` (slices, rank) and `factor` (width, rank): `y[s * width + i, r] = scales[s, r] factor[i, r]`,
/// (slices * width, rank). Gradients for whichever is tracked.
///
/// # Errors
/// Shapes or element types that do not fit.
pub fn khatri_rao(factor: &Tensor, scales: &Tensor) -> Result<Tensor> {
    check_like(KHATRI_RAO, "scales", scales, factor)?;
    if factor.rank() != 2 || scales.rank() != 2 || factor.dims().last() != scales.dims().last() {
        return Err(Error::Shape {
            op: KHATRI_RAO,
            left: "factor",
            left_shape: factor.dims().to_vec(),
            right: "scales",
            right_shape: scales.dims().to_vec(),
            rule: "factor is (width, rank), scales is (slices, rank)",
        }
        .into());
    }
    if is_cpu_float(factor) {
        return apply2(factor, scales, KhatriRao);
    }
    let copies = factor.unsqueeze(0)?.broadcast_mul(&scales.unsqueeze(1)?)?; // (slices, width, rank)
    copies.flatten_to(1)
}

/// Contiguous transpose of a matrix, row-major in memory of its own; so is its gradient.
///
/// # Errors
/// A tensor that is not a matrix.
pub fn transpose_contiguous(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    match is_cpu_float(x) && rows * columns > 0 {
        true => apply1(x, TransposeContiguous),
        false => x.t()?.contiguous(),
    }
}

multiversion! {
    /// Elementwise product: y = x s.
    fn multiplied<T, HAS_FMA>(x: &[T], s: &[T], y: &mut [std::mem::MaybeUninit<T>]) {
        for ((&x, &s), y) in x.iter().zip(s).zip(y) {
            y.write(x * s);
        }
    }
}

multiversion! {
    /// Elementwise product, accumulated: sum += x y.
    fn add_product<T, HAS_FMA>(x: &[T], y: &[T], sum: &mut [T]) {
        for ((&x, &y), sum) in x.iter().zip(y).zip(sum) {
            *sum = x.fma::<HAS_FMA>(y, *sum);
        }
    }
}

struct KhatriRao;

impl KhatriRao {
    fn run<T: Float>(factor: &Rows<'_, T>, scales: &Rows<'_, T>) -> Vec<T> {
        let (width, rank) = (factor.rows, factor.columns);
        // SAFETY: the blocks are together all rows, and each is written from end to end.
        unsafe {
            fill_uninit(scales.rows * width * rank, |y| {
                y.par_chunks_mut((ROW_BLOCK * rank).max(1)).enumerate().for_each(|(block, y)| {
                    for (row, y) in y.chunks_mut(rank.max(1)).enumerate() {
                        let row = block * ROW_BLOCK + row;
                        multiplied(factor.row(row % width), scales.row(row / width), y);
                    }
                });
            })
        }
    }

    /// Gradients: df = sum over slices of dy s; ds = sum over a slice's rows of dy f.
    fn gradients<T: Float>(
        factor_tensor: &Tensor,
        scales_tensor: &Tensor,
        dy: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let (factor, factor_layout) = factor_tensor.storage_and_layout();
        let (scales, scales_layout) = scales_tensor.storage_and_layout();
        let (dy, dy_layout) = dy.storage_and_layout();
        let factor = Rows::<T>::of(&factor, factor_layout)?;
        let scales = Rows::<T>::of(&scales, scales_layout)?;
        let dy = Rows::<T>::of(&dy, dy_layout)?;
        let (width, rank, slices) = (factor.rows, factor.columns, scales.rows);
        let df = factor_tensor.track_op().then(|| {
            let mut df = vec![T::zero(); width * rank];
            df.par_chunks_mut((ROW_BLOCK * rank).max(1)).enumerate().for_each(|(block, df)| {
                for (row, df) in df.chunks_mut(rank.max(1)).enumerate() {
                    for slice in 0..slices {
                        let dy = dy.row(slice * width + block * ROW_BLOCK + row);
                        add_product(dy, scales.row(slice), df);
                    }
                }
            });
            tensor_from_vec(df, factor_tensor.dims())
        });
        let ds = scales_tensor.track_op().then(|| {
            // Blocks of rows in parallel, then in order.
            let blocks = width.div_ceil(ROW_BLOCK);
            let partial: Vec<Vec<T>> = (0..slices * blocks)
                .into_par_iter()
                .map(|task| {
                    let (slice, first) = (task / blocks, task % blocks * ROW_BLOCK);
                    let mut sums = vec![T::zero(); rank];
                    for row in first..width.min(first + ROW_BLOCK) {
                        add_product(dy.row(slice * width + row), factor.row(row), &mut sums);
                    }
                    sums
                })
                .collect();
            let mut ds = Vec::with_capacity(slices * rank);
            let mut partial = partial.into_iter();
            for _ in 0..slices {
                ds.extend(reduce(partial.by_ref().take(blocks).collect(), rank));
            }
            tensor_from_vec(ds, scales_tensor.dims())
        });
        Ok([df.transpose()?, ds.transpose()?])
    }
}

impl CustomOp2 for KhatriRao {
    fn name(&self) -> &'static str {
        KHATRI_RAO
    }

    fn cpu_fwd(
        &self,
        factor: &CpuStorage,
        factor_layout: &Layout,
        scales: &CpuStorage,
        scales_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        fn run<T: Float>(
            factor: (&CpuStorage, &Layout),
            scales: (&CpuStorage, &Layout),
        ) -> Result<(CpuStorage, Shape)> {
            let factor = Rows::<T>::new(factor.0, factor.1)?;
            let scales = Rows::<T>::new(scales.0, scales.1)?;
            let shape = (scales.rows * factor.rows, factor.columns);
            Ok((T::to_cpu_storage_owned(KhatriRao::run(&factor, &scales)), shape.into()))
        }
        by_element!(KHATRI_RAO, factor.dtype(), T => run::<T>((factor, factor_layout), (scales, scales_layout)))
    }

    fn bwd(
        &self,
        factor: &Tensor,
        scales: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [df, ds] = by_element!(KHATRI_RAO, factor.dtype(), T => KhatriRao::gradients::<T>(factor, scales, dy))?;
        Ok((df, ds))
    }
}

struct TransposeContiguous;

impl TransposeContiguous {
    fn run<T: Float>(x: &CpuStorage, layout: &Layout) -> Result<Vec<T>> {
        Ok(strided::<T>(x, layout)?.t().to_row_major())
    }

    fn forward<T: Float>(x: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        Ok(T::to_cpu_storage_owned(Self::run::<T>(x, layout)?))
    }
}

impl CustomOp1 for TransposeContiguous {
    fn name(&self) -> &'static str {
        TRANSPOSE_CONTIGUOUS
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let transposed =
            by_element!(TRANSPOSE_CONTIGUOUS, x.dtype(), T => Self::forward::<T>(x, layout))?;
        Ok((transposed, (columns, rows).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (storage, layout) = dy.storage_and_layout();
        let storage = cpu(&storage)?;
        by_element!(TRANSPOSE_CONTIGUOUS, dy.dtype(), T => {
            Ok(Some(tensor_from_vec(Self::run::<T>(storage, layout)?, x.dims())?))
        })
    }
}
