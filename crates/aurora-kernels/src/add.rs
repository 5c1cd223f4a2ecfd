//! Elementwise sum of two tensors of one shape, as an operation that a [tape](crate::tape) records.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::float::Float;
use crate::multiversion::multiversion;
use crate::tape::apply2;
use crate::view::{Rows, by_element, cpu, fill_uninit, tensor_from_vec};

/// Elements per task.
const CHUNK: usize = 16 * 1024;

/// Sum `x + y`. On a GPU it is candle's sum.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match x.device().is_cpu() && x.dims() == y.dims() {
        true => apply2(x, y, Add),
        false => x + y,
    }
}

/// Sum `x + y` without a graph, of tensors on the CPU.
pub(crate) fn add_detached(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let ((left, left_layout), (right, right_layout)) =
        (x.storage_and_layout(), y.storage_and_layout());
    let (left, right) = ((cpu(&left)?, left_layout), (cpu(&right)?, right_layout));
    by_element!("add", x.dtype(), T => tensor_from_vec(add_elements::<T>(left, right)?, x.dims()))
}

multiversion! {
    /// z = x + y.
    fn add_slices<T, HAS_FMA>(x: &[T], y: &[T], z: &mut [std::mem::MaybeUninit<T>]) {
        for ((&x, &y), z) in x.iter().zip(y).zip(z) {
            z.write(x + y);
        }
    }
}

fn add_elements<T: Float>(x: (&CpuStorage, &Layout), y: (&CpuStorage, &Layout)) -> Result<Vec<T>> {
    let (x, y) = (Rows::<T>::new(x.0, x.1)?, Rows::<T>::new(y.0, y.1)?);
    let count = x.rows * x.columns;
    if (y.rows, y.columns) != (x.rows, x.columns) {
        return Err(candle_core::Error::msg("add: two shapes"));
    }
    // SAFETY: the pieces are together all elements, and each is written from end to end.
    Ok(unsafe {
        fill_uninit(count, |z| match (x.flat(), y.flat()) {
            (Some(x), Some(y)) => z
                .par_chunks_mut(CHUNK)
                .zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)))
                .for_each(|(z, (x, y))| add_slices(x, y, z)),
            _ => z
                .par_chunks_mut(x.columns.max(1))
                .enumerate()
                .for_each(|(row, z)| add_slices(x.row(row), y.row(row), z)),
        })
    })
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        fn run<T: Float>(
            x: (&CpuStorage, &Layout),
            y: (&CpuStorage, &Layout),
        ) -> Result<CpuStorage> {
            Ok(T::to_cpu_storage_owned(add_elements::<T>(x, y)?))
        }
        let z = by_element!("add", x.dtype(), T => run::<T>((x, x_layout), (y, y_layout)))?;
        Ok((z, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _y: &Tensor,
        _z: &Tensor,
        dz: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dz.clone()), Some(dz.clone())))
    }
}
